# Multi30k: what each usual step adds to Transformer-tiny, on two protocols (README.md). On the command line:
# PAIR=en-de|de-en|en-fr PROTOCOL=raw|published SEEDS="1 2 3" ROWS="baseline ..." CONFIG=transformer|paper
# AVERAGE=N BACK=beam|sampling MIRROR=DIR_OR_URL SET="section.key=value ...".
# Stamps (.trained-NAME, .evaluated-NAME) are made when a step is done, so that an interrupted one is gone on with.
MULTI30K := runs/multi30k
MULTI30K_SCRIPTS := recipes/multi30k

MULTI30K_PAIRS := en-de de-en en-fr
MULTI30K_KNOWN_ROWS := baseline sampling r-drop averaging back-translation ensemble \
  only-r-drop only-averaging only-back-translation
MULTI30K_PAIR := $(call choice,PAIR,en-de)
MULTI30K_PROTOCOL := $(call choice,PROTOCOL,raw)
MULTI30K_SEEDS := $(sort $(call choice,SEEDS,1))
MULTI30K_ROWS := $(call choice,ROWS,baseline sampling r-drop averaging back-translation ensemble)
MULTI30K_CONFIG := $(call choice,CONFIG,transformer)
MULTI30K_AVERAGE := $(call choice,AVERAGE,$(if $(filter paper,$(MULTI30K_CONFIG)),10,5))
MULTI30K_BACK := $(call choice,BACK,beam)

# Names of nmt's registry; files of the same form may stand in their place.
MULTI30K_CORPUS ?= multi30k
MULTI30K_TOK_CORPUS ?= multi30k-tok
MULTI30K_MONO_CORPUS ?= multi30k-mono
# Back-translation: options of `nmt translate` (int8 is for CPUs, and quick enough), and how often a pair is seen in an epoch.
MULTI30K_BACK_OPTIONS ?= --device cpu --precision int8
MULTI30K_BACK_WEIGHTS ?= 2,1
MULTI30K_BACK_SEED ?= 1
MULTI30K_BACK_beam := --beam-size 5
MULTI30K_BACK_sampling := --sample --seed 1
MULTI30K_SAMPLED := $(if $(filter sampling,$(MULTI30K_BACK)),-sampled)
MULTI30K_BACK_NAME := $(if $(MULTI30K_SAMPLED),sampled )back-translation

multi30k-known = $(known)
ifneq ($(filter multi30k,$(MAKECMDGOALS)),)
  $(call multi30k-known,PAIR,$(MULTI30K_PAIR),$(MULTI30K_PAIRS))
  $(call multi30k-known,PROTOCOL,$(MULTI30K_PROTOCOL),raw published)
  $(call multi30k-known,ROWS,$(MULTI30K_ROWS),$(MULTI30K_KNOWN_ROWS))
  $(call multi30k-known,CONFIG,$(MULTI30K_CONFIG),transformer paper)
  $(call multi30k-known,BACK,$(MULTI30K_BACK),beam sampling)
  $(call numbers,SEEDS,$(MULTI30K_SEEDS))
endif

# Of "en-de" the first and the second language, and "de-en". Of a pair its folder.
multi30k-source = $(firstword $(subst -, ,$(1)))
multi30k-target = $(lastword $(subst -, ,$(1)))
multi30k-reverse = $(call multi30k-target,$(1))-$(call multi30k-source,$(1))
multi30k-folder = $(MULTI30K)/$(MULTI30K_PROTOCOL)/$(1)$(addprefix -,$(filter-out transformer,$(MULTI30K_CONFIG)))

# Prefix of a split, its file in a language, what has to be fetched for a pair, BLEU's options.
ifeq ($(MULTI30K_PROTOCOL),published)
  MULTI30K_TESTS := test_2016_flickr test_2017_flickr test_2017_mscoco
  multi30k-prefix = corpora/multi30k-tok/$(1).lc.norm.tok
  multi30k-file = $(multi30k-prefix).$(2)
  multi30k-fetched = corpora/multi30k-tok/.complete
  MULTI30K_METRICS := --tokenize none
else
  MULTI30K_TESTS := test_2016_flickr test_2017_flickr test_2017_mscoco test_2018_flickr
  multi30k-prefix = corpora/multi30k/$(1)
  multi30k-file = $(multi30k-prefix).$(2).gz
  multi30k-fetched = corpora/multi30k/.complete$(if $(findstring fr,$(1)),-fr)
  MULTI30K_METRICS :=
endif

# The rows. Each of the first five adds to the one before; "only-" adds one thing to the baseline. A row is the best
# checkpoint of a training, or the mean of the last ones. Its id is what its files are called after.
MULTI30K_SET_sampling := tokenizer.sampling=0.1
MULTI30K_SET_only-r-drop := training.r_drop=5
MULTI30K_SET_r-drop := $(MULTI30K_SET_sampling) $(MULTI30K_SET_only-r-drop)
MULTI30K_SET_back-translation := $(MULTI30K_SET_r-drop)
MULTI30K_NAME_transformer := transformer-tiny
MULTI30K_NAME_paper := transformer-tiny (Wu et al.)
MULTI30K_ADDS_sampling := $(empty) + sampling
MULTI30K_ADDS_r-drop := $(MULTI30K_ADDS_sampling) + R-Drop
MULTI30K_ADDS_averaging := $(MULTI30K_ADDS_r-drop) + averaging
MULTI30K_ADDS_back-translation := $(MULTI30K_ADDS_averaging) + $(MULTI30K_BACK_NAME)
MULTI30K_ADDS_only-r-drop := $(empty) + R-Drop
MULTI30K_ADDS_only-averaging := $(empty) + averaging
MULTI30K_ADDS_only-back-translation := $(empty) + $(MULTI30K_BACK_NAME)
multi30k-name = $(MULTI30K_NAME_$(MULTI30K_CONFIG))$(MULTI30K_ADDS_$(1))
multi30k-training = $(if $(filter averaging,$(1)),r-drop,$(if $(filter only-averaging,$(1)),baseline,$(1)))
multi30k-averaged = $(filter averaging only-averaging back-translation,$(1))
multi30k-id = $(1)$(if $(findstring back,$(1)),$(MULTI30K_SAMPLED))

# A pair and a training -> options of `nmt train`.
comma := ,
multi30k-quoted = "$(subst $(empty) ,"$(comma)",$(strip $(1)))"
multi30k-train = $(call multi30k-prefix,train) $(if $(findstring back,$(2)),$(call multi30k-folder,$(1))/back$(MULTI30K_SAMPLED)/train)
multi30k-options = --set 'data.train=[$(call multi30k-quoted,$(call multi30k-train,$(1),$(2)))]' \
  --set 'data.validation=$(call multi30k-prefix,val)' \
  --set 'data.test=[$(call multi30k-quoted,$(foreach t,$(MULTI30K_TESTS),$(call multi30k-prefix,$(t))))]' \
  --set data.source_language=$(call multi30k-source,$(1)) --set data.target_language=$(call multi30k-target,$(1)) \
  $(if $(findstring back,$(2)),--set 'data.tags=[""$(comma)"<back>"]' --set 'data.weights=[$(MULTI30K_BACK_WEIGHTS)]') \
  $(addprefix --set ,$(MULTI30K_SET_$(2)))

# Rows that cannot be had, and why.
MULTI30K_IMPOSSIBLE := $(if $(filter %-fr,$(MULTI30K_PAIR)),back-translation only-back-translation) \
  $(if $(word 2,$(MULTI30K_SEEDS)),,ensemble)
MULTI30K_WHY_back-translation := the dataset has no French monolingual text
MULTI30K_WHY_only-back-translation := $(MULTI30K_WHY_back-translation)
MULTI30K_WHY_ensemble := it needs two seeds or more, as in SEEDS="1 2 3"
MULTI30K_SKIPPED := $(filter $(MULTI30K_IMPOSSIBLE),$(MULTI30K_ROWS))
MULTI30K_TAKEN := $(filter-out $(MULTI30K_IMPOSSIBLE),$(MULTI30K_ROWS))

# The ensemble is of all seeds of the last of the other rows; where it is asked for alone, of the last that can be had.
MULTI30K_ENSEMBLE_OF := $(or $(lastword $(filter-out ensemble,$(MULTI30K_TAKEN))),\
  $(if $(filter back-translation,$(MULTI30K_IMPOSSIBLE)),averaging,back-translation))
MULTI30K_ENSEMBLE := ensemble-of-$(call multi30k-id,$(MULTI30K_ENSEMBLE_OF))$(subst \
  $(empty) ,,$(addprefix -,$(MULTI30K_SEEDS)))
MULTI30K_HERE := $(call multi30k-folder,$(MULTI30K_PAIR))
# Its results, row by row: folder/scores/NAME.json, of the stamps folder/.evaluated-NAME.
MULTI30K_NAMES := $(foreach r,$(MULTI30K_TAKEN),\
  $(if $(filter ensemble,$(r)),$(MULTI30K_ENSEMBLE),$(foreach s,$(MULTI30K_SEEDS),$(call multi30k-id,$(r))-$(s))))

ifneq ($(filter multi30k,$(MAKECMDGOALS)),)
  $(call same,$(sort $(foreach r,$(filter-out ensemble,$(MULTI30K_TAKEN)),$(foreach s,$(MULTI30K_SEEDS),\
    $(MULTI30K_HERE)/.trained-$(call multi30k-id,$(call multi30k-training,$(r)))-$(s)))))
endif

.PHONY: multi30k
multi30k: $(addprefix $(MULTI30K_HERE)/.evaluated-,$(MULTI30K_NAMES))  ## Multi30k (PAIR=, PROTOCOL=, ROWS=, SEEDS=, MIRROR=): see its README
	@$(if $(MULTI30K_NAMES),,echo 'no row is left' >&2; exit 2)
	@$(BIN)/python $(MULTI30K_SCRIPTS)/means.py $(MULTI30K_HERE) --all $(MULTI30K) \
	  --scores $(MULTI30K_NAMES:%=$(MULTI30K_HERE)/scores/%.json)
	@cat $(MULTI30K_HERE)/results.md
	@test ! -e $(MULTI30K_HERE)/means.md || cat $(MULTI30K_HERE)/means.md
	@$(foreach r,$(MULTI30K_SKIPPED),echo 'row $(r) of $(MULTI30K_PAIR) is left out: $(MULTI30K_WHY_$(r))' >&2;)

# The text
multi30k-get = $(NMT) data get $(1) $(if $(MIRROR),--mirror '$(MIRROR)')
corpora/multi30k/.complete: | $(READY)
	$(call multi30k-get,$(MULTI30K_CORPUS)) --output $(@D) --language en --language de
	@touch $@
corpora/multi30k/.complete-fr: | $(READY)
	$(call multi30k-get,$(MULTI30K_CORPUS)) --output $(@D) --language en --language fr
	@touch $@
corpora/multi30k-tok/.complete: | $(READY)
	$(call multi30k-get,$(MULTI30K_TOK_CORPUS)) --output $(@D)
	@touch $@
corpora/multi30k-mono/.complete: | $(READY)
	$(call multi30k-get,$(MULTI30K_MONO_CORPUS)) --output $(@D)
	@touch $@

# A pair, a training, a seed
define multi30k-train-rule
$(call multi30k-folder,$(1))/.trained-$(call multi30k-id,$(2))-$(3): $(MULTI30K_SCRIPTS)/$(MULTI30K_CONFIG).toml \
    $(call multi30k-fetched,$(1)) $(if $(findstring back,$(2)),$(call multi30k-folder,$(1))/back$(MULTI30K_SAMPLED)/.translated) | $(READY)
	$(NMT) train $$< --run $(call multi30k-folder,$(1))/$(call multi30k-id,$(2))-$(3) $(call multi30k-options,$(1),$(2)) \
	  --set training.seed=$(3) $(SETTINGS)
	$$(stamp)
endef

# The pair's monolingual text, each sentence once, then its translation by the reverse pair's baseline of one seed, which is
# the same whatever seeds are asked for: all of them train on one translation.
multi30k-held-out = $(foreach t,val $(MULTI30K_TESTS),$(call multi30k-file,$(t),$(call multi30k-target,$(1))))
define multi30k-back-rules
$(call multi30k-folder,$(1))/back$(MULTI30K_SAMPLED)/.text: corpora/multi30k-mono/.complete $(call multi30k-fetched,$(1)) | $(READY)
	$(if $(filter published,$(MULTI30K_PROTOCOL)),$(BIN)/python -c 'import sacremoses' 2> /dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt sacremoses)
	$(BIN)/python $(MULTI30K_SCRIPTS)/monolingual.py \
	  $(foreach n,1 2 3 4 5,corpora/multi30k-mono/train.$(n).$(call multi30k-target,$(1)).gz) \
	  --without $(call multi30k-held-out,$(1)) --output $$(@D)/train.$(call multi30k-target,$(1)) \
	  $(if $(filter published,$(MULTI30K_PROTOCOL)),--tokenize $(call multi30k-target,$(1)))
	@touch $$@
$(call multi30k-folder,$(1))/back$(MULTI30K_SAMPLED)/.translated: $(call multi30k-folder,$(1))/back$(MULTI30K_SAMPLED)/.text \
    $(call multi30k-folder,$(2))/.trained-baseline-$(3)
	$(NMT) translate $(call multi30k-folder,$(2))/baseline-$(3) $$(@D)/train.$(call multi30k-target,$(1)) \
	  --output $$(@D)/train.$(call multi30k-source,$(1)) $(MULTI30K_BACK_$(MULTI30K_BACK)) $(MULTI30K_BACK_OPTIONS)
	@touch $$@
endef

# A row and a seed. A short training has fewer checkpoints than are to be averaged: then all.
multi30k-run = $(MULTI30K_HERE)/$(call multi30k-id,$(call multi30k-training,$(1)))-$(2)
multi30k-model = $(multi30k-run)$(if $(call multi30k-averaged,$(1)),-mean)
multi30k-average = rm -rf $(multi30k-model); \
  count=`ls -d $(multi30k-run)/checkpoints/step-* | wc -l`; \
  test $$$$count -lt $(MULTI30K_AVERAGE) || count=$(MULTI30K_AVERAGE); \
  $(NMT) average $(multi30k-run) --last $$$$count --output $(multi30k-model)
multi30k-texts = --source $(call multi30k-file,$$$$test,$(call multi30k-source,$(MULTI30K_PAIR))) \
  --reference $(call multi30k-file,$$$$test,$(call multi30k-target,$(MULTI30K_PAIR))) $(MULTI30K_METRICS)
multi30k-output = $(MULTI30K_HERE)/translations/$$$$test.$(1).$(call multi30k-target,$(MULTI30K_PAIR))
define multi30k-row-rule
$(MULTI30K_HERE)/.evaluated-$(call multi30k-id,$(1))-$(2): $(MULTI30K_HERE)/.trained-$(call multi30k-id,$(call multi30k-training,$(1)))-$(2)
	$(if $(call multi30k-averaged,$(1)),$(multi30k-average))
	@mkdir -p $$(@D)/translations $$(@D)/scores
	@rm -f $$(@D)/scores/$(call multi30k-id,$(1))-$(2).json
	for test in $(MULTI30K_TESTS); do \
	  $(NMT) evaluate $(multi30k-model) --name '$(multi30k-name) (seed $(2))' --test-set $$$$test $(multi30k-texts) \
	    --output $(call multi30k-output,$(call multi30k-id,$(1))-$(2)) \
	    --results $$(@D)/scores/$(call multi30k-id,$(1))-$(2).json || exit; \
	done
	@touch $$@
endef

$(foreach p,$(sort $(MULTI30K_PAIR) $(call multi30k-reverse,$(MULTI30K_PAIR))),$(foreach s,$(sort $(MULTI30K_BACK_SEED) $(MULTI30K_SEEDS)),\
  $(foreach t,baseline sampling r-drop only-r-drop back-translation only-back-translation,\
    $(eval $(call multi30k-train-rule,$(p),$(t),$(s))))))
$(foreach s,$(MULTI30K_SEEDS),$(foreach r,$(filter-out ensemble,$(MULTI30K_KNOWN_ROWS)),\
  $(eval $(call multi30k-row-rule,$(r),$(s)))))
$(eval $(call multi30k-back-rules,$(MULTI30K_PAIR),$(call multi30k-reverse,$(MULTI30K_PAIR)),$(MULTI30K_BACK_SEED)))

MULTI30K_MODELS := $(foreach s,$(MULTI30K_SEEDS),$(call multi30k-model,$(MULTI30K_ENSEMBLE_OF),$(s)))
$(MULTI30K_HERE)/.evaluated-$(MULTI30K_ENSEMBLE): \
    $(foreach s,$(MULTI30K_SEEDS),$(MULTI30K_HERE)/.evaluated-$(call multi30k-id,$(MULTI30K_ENSEMBLE_OF))-$(s))
	@rm -f $(@D)/scores/$(MULTI30K_ENSEMBLE).json
	for test in $(MULTI30K_TESTS); do \
	  $(NMT) evaluate $(firstword $(MULTI30K_MODELS)) $(addprefix --ensemble ,$(wordlist 2,99,$(MULTI30K_MODELS))) \
	    --name '$(call multi30k-name,$(MULTI30K_ENSEMBLE_OF)) + ensemble of $(words $(MULTI30K_SEEDS))' --test-set $$test \
	    --source $(call multi30k-file,$$test,$(call multi30k-source,$(MULTI30K_PAIR))) \
	    --reference $(call multi30k-file,$$test,$(call multi30k-target,$(MULTI30K_PAIR))) $(MULTI30K_METRICS) \
	    --output $(@D)/translations/$$test.$(MULTI30K_ENSEMBLE).$(call multi30k-target,$(MULTI30K_PAIR)) \
	    --results $(@D)/scores/$(MULTI30K_ENSEMBLE).json || exit; \
	done
	@touch $@

# The recurrent model on the published protocol: `make multi30k-recurrent`, or TOK=DIR with the text, plain or .gz.
MULTI30K_TOK := $(call choice,TOK,corpora/multi30k-tok)

.PHONY: multi30k-recurrent
multi30k-recurrent: $(MULTI30K)/.done-recurrent  ## Bahdanau on tokenised Multi30k (MIRROR= or TOK=DIR), half an hour
	@cat $(MULTI30K)/recurrent/results.md

$(MULTI30K)/.done-recurrent: recipes/multi30k/bahdanau.toml \
    $(if $(call given,TOK),,corpora/multi30k-tok/.complete) | $(READY)
	$(NMT) train $< --run $(MULTI30K)/recurrent/bahdanau \
	  --set data.train=$(MULTI30K_TOK)/train.lc.norm.tok --set data.validation=$(MULTI30K_TOK)/val.lc.norm.tok $(SETTINGS)
	rm -rf $(MULTI30K)/recurrent/averaged $(MULTI30K)/recurrent/results.json
	$(NMT) average $(MULTI30K)/recurrent/bahdanau --last $(call choice,AVERAGE,5) --output $(MULTI30K)/recurrent/averaged
	for test in test_2016_flickr test_2017_flickr test_2017_mscoco; do \
	  $(NMT) evaluate $(MULTI30K)/recurrent/averaged --name bahdanau --test-set $$test --tokenize none \
	    --source `ls $(MULTI30K_TOK)/$$test.lc.norm.tok.en* | head -n 1` \
    --reference `ls $(MULTI30K_TOK)/$$test.lc.norm.tok.de* | head -n 1` \
	    --output $(MULTI30K)/recurrent/$$test.de --results $(MULTI30K)/recurrent/results.json || exit; \
	done
	@touch $@
