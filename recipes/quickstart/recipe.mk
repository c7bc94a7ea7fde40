# The offline corpus, both architectures, both tests: from nothing to runs/quickstart/results.md.
# Stamps (.corpus, .trained-NAME) are made when a step is done, so that an interrupted one is gone on with.
QUICKSTART := runs/quickstart

ifneq ($(filter quickstart,$(MAKECMDGOALS)),)
  $(call same,$(QUICKSTART)/.trained-*)
endif

.PHONY: quickstart
quickstart: $(QUICKSTART)/.done  ## Corpus, tokenizer, two models, translations, a table: a few minutes
	@cat $(QUICKSTART)/results.md
	@echo "attention: pages $(QUICKSTART)/attention-transformer.html and attention-bahdanau.html, pictures .png"

$(QUICKSTART)/.corpus: | $(READY)
	$(NMT) data synthesize --output $(QUICKSTART)/corpus --train 20000
	@touch $@

$(QUICKSTART)/.trained-%: recipes/quickstart/%.toml $(QUICKSTART)/.corpus | $(READY)
	$(NMT) train $< --run $(QUICKSTART)/$* $(SETTINGS)
	$(stamp)

$(QUICKSTART)/.done: $(QUICKSTART)/.trained-transformer $(QUICKSTART)/.trained-bahdanau
	rm -f $(QUICKSTART)/results.json
	for system in transformer bahdanau; do for test in test test-compositional; do \
	  $(NMT) evaluate $(QUICKSTART)/$$system \
	    --source $(QUICKSTART)/corpus/$$test.en --reference $(QUICKSTART)/corpus/$$test.de \
	    --output $(QUICKSTART)/$$system.$$test.de --results $(QUICKSTART)/results.json || exit; \
	done; done
	for system in transformer bahdanau; do for format in html png; do \
	  $(NMT) attention $(QUICKSTART)/$$system $(QUICKSTART)/corpus/test.en --max-sentences 20 \
	    --output $(QUICKSTART)/attention-$$system.$$format || exit; \
	done; done
	@touch $@
