# Multi30k English-German on raw text: cased, detokenised BLEU of four test sets.
# `make multi30k MIRROR=DIR_OR_URL` takes the files from elsewhere than their public address.
MULTI30K := runs/multi30k
MULTI30K_TESTS := test_2016_flickr test_2017_flickr test_2017_mscoco test_2018_flickr

.PHONY: multi30k
multi30k: $(MULTI30K)/.done  ## Multi30k en-de: fetch (MIRROR=...), train about an hour, test
	@cat $(MULTI30K)/results.md

corpora/multi30k/.complete: | $(READY)
	$(NMT) data get multi30k --language en --language de $(if $(MIRROR),--mirror '$(MIRROR)')
	@touch $@

$(MULTI30K)/.trained: recipes/multi30k/transformer.toml corpora/multi30k/.complete | $(READY)
	$(NMT) train $< --run $(MULTI30K)/transformer $(SETTINGS)
	@touch $@

$(MULTI30K)/.done: $(MULTI30K)/.trained
	$(NMT) average $(MULTI30K)/transformer --last 5 --output $(MULTI30K)/averaged
	rm -f $(MULTI30K)/results.json
	for test in $(MULTI30K_TESTS); do \
	  $(NMT) evaluate $(MULTI30K)/averaged --name transformer-tiny --test-set $$test \
	    --source corpora/multi30k/$$test.en.gz --reference corpora/multi30k/$$test.de.gz \
	    --output $(MULTI30K)/$$test.de --results $(MULTI30K)/results.json || exit; \
	done
	@touch $@

# The published protocol: the dataset's own lower-cased, tokenised text (its folder data/task1/tok, plain or .gz),
# BLEU of the tokens as they stand. `make multi30k-recurrent TOK=DIR` trains the recurrent model on it.
TOK ?= corpora/multi30k-tok
MULTI30K_TOK_TESTS := test_2016_flickr test_2017_flickr test_2017_mscoco

.PHONY: multi30k-recurrent
multi30k-recurrent: $(MULTI30K)/.done-recurrent  ## Bahdanau on tokenised Multi30k (TOK=DIR), half an hour
	@cat $(MULTI30K)/recurrent/results.md

$(MULTI30K)/.done-recurrent: recipes/multi30k/bahdanau.toml | $(READY)
	$(NMT) train $< --run $(MULTI30K)/recurrent/bahdanau \
	  --set data.train=$(TOK)/train.lc.norm.tok --set data.validation=$(TOK)/val.lc.norm.tok $(SETTINGS)
	rm -rf $(MULTI30K)/recurrent/averaged $(MULTI30K)/recurrent/results.json
	$(NMT) average $(MULTI30K)/recurrent/bahdanau --last 5 --output $(MULTI30K)/recurrent/averaged
	for test in $(MULTI30K_TOK_TESTS); do \
	  $(NMT) evaluate $(MULTI30K)/recurrent/averaged --name bahdanau --test-set $$test --tokenize none \
	    --source `ls $(TOK)/$$test.lc.norm.tok.en*` --reference `ls $(TOK)/$$test.lc.norm.tok.de*` \
	    --output $(MULTI30K)/recurrent/$$test.de --results $(MULTI30K)/recurrent/results.json || exit; \
	done
	@touch $@
