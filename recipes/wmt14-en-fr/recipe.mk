# WMT 2014 English-French: Vaswani et al. 2017, base and big; Bahdanau et al. 2014; Sutskever et al. 2014. BLEU by
# sacreBLEU, and of tokens, as the papers report it.
include recipes/protocols/shared.mk

wmt14-en-fr-systems := transformer-base
wmt14-en-fr-tokenised := bahdanau2014 sutskever2014
wmt14-en-fr-plain := --plain corpora/wmt14-en-fr/newstest2014.fr
wmt14-en-fr-average-transformer-base := --last 5
wmt14-en-fr-average-transformer-big := --last 20
wmt14-en-fr-average-bahdanau2014 := --best 1
wmt14-en-fr-average-sutskever2014 := --best 1

.PHONY: wmt14-en-fr
wmt14-en-fr: runs/wmt14-en-fr/.done  ## WMT14 en-fr, Transformer base (SYSTEMS=, MIRROR=, LAUNCH=): GPUs
	@cat runs/wmt14-en-fr/results.md

# Word systems read Moses tokens.
WMT14_EN_FR_CORPORA := $(addprefix corpora/wmt14-en-fr/,europarl-v7 commoncrawl news-commentary-v9 undoc-2000 giga-fren)
runs/wmt14-en-fr/.text: corpora/wmt14-en-fr/.complete
	$(PROTOCOLS) text $(WMT14_EN_FR_CORPORA) --languages en fr --output runs/wmt14-en-fr/text/train.gz
	$(PROTOCOLS) text corpora/wmt14-en-fr/newstest2013 --languages en fr --output runs/wmt14-en-fr/text/validation
	$(PROTOCOLS) text corpora/wmt14-en-fr/newstest2014 --languages en fr --output runs/wmt14-en-fr/text/test
	@touch $@

$(eval $(call public-recipe,wmt14-en-fr,en,fr,corpora/wmt14-en-fr/newstest2014,newstest2014,))
