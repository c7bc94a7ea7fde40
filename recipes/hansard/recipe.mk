# Hansard English-French: what is wrong with the corpus, two models, BLEU, and word alignments against people's.
# The public source is the repository j1ai/Canadian_Hansards_Neural_Machine_Translation, commit 554666a; its split into
# train, dev and test is made by whoever assembles the folder, so the recipe takes folders and downloads nothing:
# `make hansard HANSARD=DIR ALIGNMENTS=DIR`, DIR with {train,dev,test}.{en,fr} and hansard.{en,fr,gold}, plain or .gz;
# MIRROR=DIR stands for DIR/hansard and DIR/alignments.
# `make hansard-guided` then trains with the links of these two models (nmt train, training.guided_alignment).
# Stamps (.trained-NAME) are made when a step is done, so that an interrupted recipe is gone on with.
HANSARD_RUN := runs/hansard
HANSARD_SCRIPT := $(BIN)/python recipes/hansard/hansard.py
HANSARD ?= $(or $(MIRROR),corpora)/hansard
ALIGNMENTS ?= $(or $(MIRROR),corpora)/alignments

# Of "en-fr" the first and the second language; the file of a prefix and a language, plain or .gz.
hansard-source = $(firstword $(subst -, ,$(1)))
hansard-target = $(lastword $(subst -, ,$(1)))
hansard-file = $(firstword $(wildcard $(1).$(2) $(1).$(2).gz))
hansard-train = $(NMT) train recipes/hansard/transformer.toml --run $(HANSARD_RUN)/$(1)$(2) \
  --set data.train=$(HANSARD)/train --set data.validation=$(HANSARD)/dev --set data.test=$(HANSARD)/test \
  --set data.source_language=$(call hansard-source,$(2)) --set data.target_language=$(call hansard-target,$(2))
hansard-evaluate = $(NMT) evaluate $(HANSARD_RUN)/$(1)$(2)-averaged --name $(1)$(2) --test-set test.$(2) \
  --source $(call hansard-file,$(HANSARD)/test,$(call hansard-source,$(2))) \
  --reference $(call hansard-file,$(HANSARD)/test,$(call hansard-target,$(2))) \
  --output $(HANSARD_RUN)/test.$(1)$(2) --results $(HANSARD_RUN)/results.json

ifneq ($(filter hansard hansard-guided,$(MAKECMDGOALS)),)
  $(call same,$(HANSARD_RUN)/.trained-*)
endif

.PHONY: hansard hansard-guided
hansard: $(HANSARD_RUN)/.aligned  ## Hansard en-fr (HANSARD=DIR ALIGNMENTS=DIR): doctor, BLEU, AER; two hours
	@cat $(HANSARD_RUN)/check.md $(HANSARD_RUN)/results.md
hansard-guided: $(HANSARD_RUN)/.aligned-guided  ## The same with attention trained on the links of its models
	@cat $(HANSARD_RUN)/results.md

.PRECIOUS: $(HANSARD_RUN)/.trained-% $(HANSARD_RUN)/.evaluated-% $(HANSARD_RUN)/.evaluated-guided-%

# Once it is checked no step asks for the folders' names again but those that read them.
$(HANSARD_RUN)/.checked: recipes/hansard/transformer.toml | $(READY)
	@for file in $(foreach s,train dev test,$(HANSARD)/$(s).en $(HANSARD)/$(s).fr) \
	    $(foreach s,en fr gold,$(ALIGNMENTS)/hansard.$(s)); do \
	  test -e $$file || test -e $$file.gz || { \
	    echo "make: $$file: no such file; name the folders: make hansard HANSARD=DIR ALIGNMENTS=DIR, or what holds both: MIRROR=DIR" >&2; exit 2; }; \
	done
	@mkdir -p $(HANSARD_RUN)
	$(HANSARD_SCRIPT) check $< --corpus $(HANSARD) --output $(HANSARD_RUN)
	@touch $@

$(HANSARD_RUN)/.trained-%: recipes/hansard/transformer.toml $(HANSARD_RUN)/.checked
	$(call hansard-train,,$*) $(SETTINGS)
	rm -rf $(HANSARD_RUN)/$*-averaged
	$(NMT) average $(HANSARD_RUN)/$* --last 5 --output $(HANSARD_RUN)/$*-averaged
	$(stamp)

$(HANSARD_RUN)/.evaluated-%: $(HANSARD_RUN)/.trained-%
	$(call hansard-evaluate,,$*)
	@touch $@

# The layers are those from which the two directions agree most on the dev set: nothing is chosen by the gold links.
$(HANSARD_RUN)/.aligned: $(HANSARD_RUN)/.evaluated-en-fr $(HANSARD_RUN)/.evaluated-fr-en recipes/hansard/hansard.py
	$(HANSARD_SCRIPT) align $(HANSARD_RUN)/en-fr-averaged $(HANSARD_RUN)/fr-en-averaged \
	  --dev $(HANSARD)/dev --alignments $(ALIGNMENTS) --output $(HANSARD_RUN)/alignments \
	  --results $(HANSARD_RUN)/results.json
	@touch $@

# Guided alignment: the two models align their own training text, word by word, and two new ones learn to attend so.
$(HANSARD_RUN)/.linked: $(HANSARD_RUN)/.aligned
	$(HANSARD_SCRIPT) link $(HANSARD_RUN)/en-fr-averaged $(HANSARD_RUN)/fr-en-averaged --text $(HANSARD)/train \
	  --alignments $(HANSARD_RUN)/alignments --output $(HANSARD_RUN)/links
	@touch $@

$(HANSARD_RUN)/.trained-guided-%: recipes/hansard/transformer.toml $(HANSARD_RUN)/.linked
	$(call hansard-train,guided-,$*) --set data.alignments=$(HANSARD_RUN)/links/train.$* \
	  --set data.alignment_words=punctuation --set training.guided_alignment=0.05 $(SETTINGS)
	rm -rf $(HANSARD_RUN)/guided-$*-averaged
	$(NMT) average $(HANSARD_RUN)/guided-$* --last 5 --output $(HANSARD_RUN)/guided-$*-averaged
	$(stamp)

$(HANSARD_RUN)/.evaluated-guided-%: $(HANSARD_RUN)/.trained-guided-%
	$(call hansard-evaluate,guided-,$*)
	@touch $@

$(HANSARD_RUN)/.aligned-guided: $(HANSARD_RUN)/.evaluated-guided-en-fr $(HANSARD_RUN)/.evaluated-guided-fr-en
	$(HANSARD_SCRIPT) align $(HANSARD_RUN)/guided-en-fr-averaged $(HANSARD_RUN)/guided-fr-en-averaged --name guided- \
	  --dev $(HANSARD)/dev --alignments $(ALIGNMENTS) --output $(HANSARD_RUN)/alignments-guided \
	  --results $(HANSARD_RUN)/results.json
	@touch $@
