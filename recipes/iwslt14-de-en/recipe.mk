# IWSLT 2014 German-English by the field's protocol: lower-cased Moses tokens, fairseq's split of the text.
include recipes/protocols/shared.mk

iwslt14-de-en-systems := transformer
iwslt14-de-en-tokenised := transformer
iwslt14-de-en-average-transformer := --last 10
iwslt14-de-en-plain := --plain runs/iwslt14-de-en/text/test.plain.en

.PHONY: iwslt14-de-en
iwslt14-de-en: runs/iwslt14-de-en/.done  ## IWSLT14 de-en, Transformer, tokenised BLEU (MIRROR=, LAUNCH=)
	@cat runs/iwslt14-de-en/results.md

# As fairseq's prepare-iwslt14.sh: at most 175 tokens a side and 1.5 times the other's, each 23rd pair to validate.
IWSLT14_TESTS := $(addprefix corpora/iwslt14-de-en/,dev2010 dev2012 tst2010 tst2011 tst2012)
runs/iwslt14-de-en/.text: corpora/iwslt14-de-en/.complete
	$(PROTOCOLS) text corpora/iwslt14-de-en/train --languages de en --lowercase --most 175 --ratio 1.5 \
	  --every 23 --held-out runs/iwslt14-de-en/text/validation --output runs/iwslt14-de-en/text/train
	$(PROTOCOLS) text $(IWSLT14_TESTS) --languages de en --lowercase --straight --output runs/iwslt14-de-en/text/test
	$(PROTOCOLS) join $(IWSLT14_TESTS) --language en --lowercase --output runs/iwslt14-de-en/text/test.plain.en
	@touch $@

$(eval $(call public-recipe,iwslt14-de-en,de,en,,test,))
