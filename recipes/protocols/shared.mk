# What the recipes on public corpora share; each of them includes this. On the command line:
# MIRROR=DIR_OR_URL in place of every download; SYSTEMS="..."; LAUNCH='torchrun --nproc-per-node 8 --no-python --' before
# each training; AVERAGE=N checkpoints in place of the paper's number; SET="section.key=value ..."; CORPUS=FILE.toml in place
# of the registry's entry. Stamps are made when a step is done: an interrupted recipe is gone on with.
PROTOCOLS := PYTHONPATH=recipes $(BIN)/python -P -m protocols

public-average = $(if $(call given,AVERAGE),--last $(AVERAGE),$(or $($(1)-average-$(2)),--last 5))
public-corpus = $(call choice,CORPUS,$(1))
public-launch = $(call choice,LAUNCH,)

# $(1) recipe, $(2) and $(3) languages, $(4) prefix of the test set, $(5) its name, $(6) options of `protocols score`.
# Systems in $(1)-tokenised read tokens, which runs/$(1)/.text makes (text/test.*); the others plain text.
# Variables: $(1)-systems, $(1)-average-SYSTEM; for tokens $(1)-tokenised, $(1)-plain (options: the reference as text).
define public-recipe
ifneq ($$(filter $(1),$$(MAKECMDGOALS)),)
  $$(call known,SYSTEMS,$$(call choice,SYSTEMS,$$($(1)-systems)),$$(basename $$(notdir $$(wildcard recipes/$(1)/*.toml))))
  $$(call same,$$(patsubst %,runs/$(1)/.trained-%,$$(call choice,SYSTEMS,$$($(1)-systems))))
endif

corpora/$(1)/.complete: | $$(READY)
	$$(NMT) data get $$(call public-corpus,$(1)) --output corpora/$(1) \
	  $$(if $$(call given,MIRROR),--mirror '$$(MIRROR)')
	@touch $$@

runs/$(1)/.trained-%: recipes/$(1)/%.toml corpora/$(1)/.complete | $$(READY)
	$$(call public-launch) $$(NMT) train $$< --run runs/$(1)/$$* $$(SETTINGS)
	$$(stamp)

$$(addprefix runs/$(1)/.trained-,$$($(1)-tokenised)): runs/$(1)/.text

runs/$(1)/.averaged-%: runs/$(1)/.trained-%
	rm -rf runs/$(1)/$$*-averaged
	$$(NMT) average runs/$(1)/$$* $$(call public-average,$(1),$$*) --output runs/$(1)/$$*-averaged
	@touch $$@

runs/$(1)/.evaluated-%: runs/$(1)/.averaged-%
	$$(if $$(filter $$*,$$($(1)-tokenised)), \
	  rm -f runs/$(1)/$(5).$$*.$(3)* && \
	  $$(NMT) translate runs/$(1)/$$*-averaged runs/$(1)/text/test.$(2) --output runs/$(1)/$(5).$$*.$(3), \
	  $$(NMT) evaluate runs/$(1)/$$*-averaged --name $$* --test-set $(5) --source $(4).$(2) --reference $(4).$(3) \
	    --output runs/$(1)/$(5).$$*.$(3) --results runs/$(1)/results.json)
	$$(PROTOCOLS) score runs/$(1)/$$*-averaged --system $$* --test-set $(5) --hypothesis runs/$(1)/$(5).$$*.$(3) \
	  --language $(3) $(6) --results runs/$(1)/results.json --reference \
	  $$(if $$(filter $$*,$$($(1)-tokenised)),runs/$(1)/text/test.$(3) --given $$($(1)-plain),$(4).$(3))
	@touch $$@

.PRECIOUS: runs/$(1)/.trained-% runs/$(1)/.averaged-% runs/$(1)/.evaluated-%

runs/$(1)/.done: $$(addprefix runs/$(1)/.evaluated-,$$(call choice,SYSTEMS,$$($(1)-systems)))
	@touch $$@
endef
