# IWSLT 2015 English-Vietnamese on the tokenised text of the Stanford NMT project: tst2012 validates, tst2013 tests.
include recipes/protocols/shared.mk

iwslt15-en-vi-systems := luong transformer
iwslt15-en-vi-tokenised := luong transformer
iwslt15-en-vi-average-luong := --best 1
iwslt15-en-vi-average-transformer := --last 10

.PHONY: iwslt15-en-vi
iwslt15-en-vi: runs/iwslt15-en-vi/.done  ## IWSLT15 en-vi, Luong and Transformer, tokenised BLEU (MIRROR=, LAUNCH=)
	@cat runs/iwslt15-en-vi/results.md

runs/iwslt15-en-vi/.text: corpora/iwslt15-en-vi/.complete
	$(PROTOCOLS) join corpora/iwslt15-en-vi/tst2013 --language en --output runs/iwslt15-en-vi/text/test.en
	$(PROTOCOLS) join corpora/iwslt15-en-vi/tst2013 --language vi --output runs/iwslt15-en-vi/text/test.vi
	@touch $@

$(eval $(call public-recipe,iwslt15-en-vi,en,vi,,tst2013,))
