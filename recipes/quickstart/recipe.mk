# The offline corpus, both architectures, both tests: from nothing to runs/quickstart/results.md.
QUICKSTART := runs/quickstart

.PHONY: quickstart
quickstart: $(QUICKSTART)/results.md  ## Corpus, tokenizer, two models, translations, a table: a few minutes
	@cat $(QUICKSTART)/results.md
	@echo "attention of one sentence: $(QUICKSTART)/attention-transformer.png and -bahdanau.png"

$(QUICKSTART)/corpus/train.en: | $(READY)
	$(NMT) data synthesize --output $(QUICKSTART)/corpus --train 20000

# `nmt train` knows by itself what is done and goes on where it stopped.
$(QUICKSTART)/%/best: recipes/quickstart/%.toml $(QUICKSTART)/corpus/train.en | $(READY)
	$(NMT) train $< --run $(QUICKSTART)/$*
	@touch -h $@

$(QUICKSTART)/results.md: $(QUICKSTART)/transformer/best $(QUICKSTART)/bahdanau/best
	for system in transformer bahdanau; do for test in test test-compositional; do \
	  $(NMT) evaluate $(QUICKSTART)/$$system \
	    --source $(QUICKSTART)/corpus/$$test.en --reference $(QUICKSTART)/corpus/$$test.de \
	    --output $(QUICKSTART)/$$system.$$test.de --results $(QUICKSTART)/results.json || exit; \
	done; done
	for system in transformer bahdanau; do \
	  $(NMT) attention $(QUICKSTART)/$$system $(QUICKSTART)/corpus/test.en \
	    --output $(QUICKSTART)/attention-$$system.png || exit; \
	done
	@touch $@
