# WMT 2014 English-German: Vaswani et al. 2017, base and big; Luong et al. 2015. BLEU by sacreBLEU, and of tokens with
# compounds split, as the papers report it.
include recipes/protocols/shared.mk

wmt14-en-de-systems := transformer-base
wmt14-en-de-tokenised := luong2015
wmt14-en-de-plain := --plain corpora/wmt14-en-de/newstest2014.de
wmt14-en-de-average-transformer-base := --last 5
wmt14-en-de-average-transformer-big := --last 20
wmt14-en-de-average-luong2015 := --best 1

.PHONY: wmt14-en-de
wmt14-en-de: runs/wmt14-en-de/.done  ## WMT14 en-de, Transformer base (SYSTEMS=, MIRROR=, LAUNCH=): GPUs
	@cat runs/wmt14-en-de/results.md

# Word systems read Moses tokens.
WMT14_EN_DE_CORPORA := $(addprefix corpora/wmt14-en-de/,europarl-v7 commoncrawl news-commentary-v9)
runs/wmt14-en-de/.text: corpora/wmt14-en-de/.complete
	$(PROTOCOLS) text $(WMT14_EN_DE_CORPORA) --languages en de --output runs/wmt14-en-de/text/train.gz
	$(PROTOCOLS) text corpora/wmt14-en-de/newstest2013 --languages en de --output runs/wmt14-en-de/text/validation
	$(PROTOCOLS) text corpora/wmt14-en-de/newstest2014 --languages en de --output runs/wmt14-en-de/text/test
	@touch $@

$(eval $(call public-recipe,wmt14-en-de,en,de,corpora/wmt14-en-de/newstest2014,newstest2014,--compounds))
