# From the fixed vector to the Transformer on one budget: same text, vocabulary, steps, tokens and about as many
# parameters for every system. `make attention-history` takes the offline corpus, `make attention-history-multi30k
# [MIRROR=DIR_OR_URL] [STEPS=N]` Multi30k; SYSTEMS="bahdanau transformer" chooses among them.
# Stamps (.trained-NAME, .evaluated-NAME) are made when a step is done: an interrupted recipe is gone on with.
HISTORY := runs/attention-history
HISTORY_SCRIPT := $(BIN)/python recipes/attention-history/history.py
HISTORY_SYSTEMS := no-attention bahdanau \
  luong-dot luong-general luong-concat luong-location luong-local-m luong-local-p \
  luong-dot-feed luong-general-feed luong-concat-feed luong-location-feed luong-local-m-feed luong-local-p-feed \
  transformer
SYSTEMS ?= $(HISTORY_SYSTEMS)
ifneq ($(filter attention-history attention-history-multi30k,$(MAKECMDGOALS)),)
  $(call known,SYSTEMS,$(SYSTEMS),$(HISTORY_SYSTEMS))
  $(if $(filter attention-history,$(MAKECMDGOALS)),$(call same,$(SYSTEMS:%=$(HISTORY)/offline/.trained-%)))
  $(if $(filter attention-history-multi30k,$(MAKECMDGOALS)),\
    $(call same,$(SYSTEMS:%=$(HISTORY)/multi30k/.trained-%)))
endif

# The [model] of each system. One gated layer a side, both directions in the encoder; Bahdanau's has its own.
HISTORY_no-attention := architecture=recurrent cell=gru layers=1 bidirectional=true
HISTORY_bahdanau := architecture=bahdanau
HISTORY_LUONG := architecture=luong cell=gru layers=1 bidirectional=true max_positions=128
HISTORY_PLAIN := $(HISTORY_LUONG) input_feeding=false
HISTORY_FEED := $(HISTORY_LUONG) input_feeding=true
HISTORY_luong-dot := $(HISTORY_PLAIN) score=dot
HISTORY_luong-general := $(HISTORY_PLAIN) score=general
HISTORY_luong-concat := $(HISTORY_PLAIN) score=concat
HISTORY_luong-location := $(HISTORY_PLAIN) score=location
HISTORY_luong-local-m := $(HISTORY_PLAIN) score=general window=local-m window_size=5
HISTORY_luong-local-p := $(HISTORY_PLAIN) score=general window=local-p window_size=5
HISTORY_luong-dot-feed := $(HISTORY_FEED) score=dot
HISTORY_luong-general-feed := $(HISTORY_FEED) score=general
HISTORY_luong-concat-feed := $(HISTORY_FEED) score=concat
HISTORY_luong-location-feed := $(HISTORY_FEED) score=location
HISTORY_luong-local-m-feed := $(HISTORY_FEED) score=general window=local-m window_size=5
HISTORY_luong-local-p-feed := $(HISTORY_FEED) score=general window=local-p window_size=5
HISTORY_transformer := architecture=transformer norm=pre heads=4

# Widths for about 1.26 million parameters (offline) and 4.4 million (multi30k): tests/test_recipe_attention_history.py.
HISTORY_SIZE_offline_no-attention := embedding_width=264 hidden_width=264
HISTORY_SIZE_offline_bahdanau := embedding_width=128 maxout_width=128 hidden_width=184 attention_width=184
HISTORY_SIZE_offline_plain := embedding_width=288 attentional_width=288 hidden_width=200
HISTORY_SIZE_offline_feed := embedding_width=288 attentional_width=288 hidden_width=168
HISTORY_SIZE_offline_transformer := encoder_layers=3 decoder_layers=3 width=128 feed_forward_width=256
HISTORY_SIZE_multi30k_no-attention := embedding_width=376 hidden_width=376
HISTORY_SIZE_multi30k_bahdanau := embedding_width=256 maxout_width=256 hidden_width=272 attention_width=272
HISTORY_SIZE_multi30k_plain := embedding_width=352 attentional_width=352 hidden_width=384
HISTORY_SIZE_multi30k_feed := embedding_width=352 attentional_width=352 hidden_width=328
HISTORY_SIZE_multi30k_transformer := encoder_layers=4 decoder_layers=4 width=192 feed_forward_width=384
history-family = $(if $(filter luong-%-feed,$(1)),feed,$(if $(filter luong-%,$(1)),plain,$(1)))
history-model = $(HISTORY_$(2)) $(HISTORY_SIZE_$(1)_$(call history-family,$(2)))

.PHONY: attention-history attention-history-multi30k
attention-history: $(HISTORY)/offline/.done  ## Fixed vector to Transformer, 15 systems, offline corpus: 25 minutes
	@cat $(HISTORY)/offline/history.md
attention-history-multi30k: $(HISTORY)/multi30k/.done  ## The same on Multi30k (MIRROR=, STEPS=, SYSTEMS=)
	@cat $(HISTORY)/multi30k/history.md

$(HISTORY)/offline/.corpus: | $(READY)
	$(NMT) data synthesize --output $(HISTORY)/offline/corpus --train 20000 --held-out 1000
	$(HISTORY_SCRIPT) long-test $(HISTORY)/offline/corpus --after 1000 --draws 8000 --words 16
	@touch $@
$(HISTORY)/multi30k/.corpus: corpora/multi30k/.complete
	@mkdir -p $(HISTORY)/multi30k && touch $@

$(HISTORY)/offline/.trained-%: recipes/attention-history/offline.toml $(HISTORY)/offline/.corpus
	$(NMT) train $< --run $(HISTORY)/offline/$* $(addprefix --set model.,$(call history-model,offline,$*)) $(SETTINGS)
	$(stamp)
$(HISTORY)/multi30k/.trained-%: recipes/attention-history/multi30k.toml $(HISTORY)/multi30k/.corpus
	$(NMT) train $< --run $(HISTORY)/multi30k/$* \
	  $(addprefix --set model.,$(call history-model,multi30k,$*)) $(SETTINGS)
	$(stamp)

# A model without attention aligns nothing; of the Transformer the best layer counts.
history-gold = $(if $(filter no-attention,$(1)),,--gold-alignment $(2) --words punctuation \
  $(if $(filter transformer,$(1)),--layer best))
$(HISTORY)/offline/.evaluated-%: $(HISTORY)/offline/.trained-%
	@mkdir -p $(HISTORY)/offline/translations
	for test in test test-long; do \
	  $(NMT) evaluate $(HISTORY)/offline/$* --name $* --source $(HISTORY)/offline/corpus/$$test.en \
	    --reference $(HISTORY)/offline/corpus/$$test.de \
	    $(call history-gold,$*,$(HISTORY)/offline/corpus/$$test.align) \
	    --output $(HISTORY)/offline/translations/$$test.$*.de --results $(HISTORY)/offline/results.json || exit; \
	done
	$(HISTORY_SCRIPT) speed $(HISTORY)/offline/$* $(HISTORY)/offline/corpus/test.en \
	  --output $(HISTORY)/offline/$*.speed.json
	@touch $@
$(HISTORY)/multi30k/.evaluated-%: $(HISTORY)/multi30k/.trained-%
	@mkdir -p $(HISTORY)/multi30k/translations
	$(NMT) evaluate $(HISTORY)/multi30k/$* --name $* --source corpora/multi30k/test_2016_flickr.en.gz \
	  --reference corpora/multi30k/test_2016_flickr.de.gz \
	  --output $(HISTORY)/multi30k/translations/test_2016_flickr.$*.de --results $(HISTORY)/multi30k/results.json
	$(HISTORY_SCRIPT) speed $(HISTORY)/multi30k/$* corpora/multi30k/test_2016_flickr.en.gz \
	  --output $(HISTORY)/multi30k/$*.speed.json
	@touch $@

.PRECIOUS: $(HISTORY)/offline/.trained-% $(HISTORY)/multi30k/.trained-% \
  $(HISTORY)/offline/.evaluated-% $(HISTORY)/multi30k/.evaluated-%

$(HISTORY)/offline/.done: $(addprefix $(HISTORY)/offline/.evaluated-,$(SYSTEMS))
	$(HISTORY_SCRIPT) report $(HISTORY)/offline --systems $(SYSTEMS) \
	  --test $(HISTORY)/offline/corpus/test $(HISTORY)/offline/corpus/test-long
	@touch $@
$(HISTORY)/multi30k/.done: $(addprefix $(HISTORY)/multi30k/.evaluated-,$(SYSTEMS))
	$(HISTORY_SCRIPT) report $(HISTORY)/multi30k --systems $(SYSTEMS) --test corpora/multi30k/test_2016_flickr
	@touch $@
