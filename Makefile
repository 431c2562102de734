# Targets: run, test, test-tf1, test-slow, gpu-report, fuzz, lint and figure.
# Each target first installs its packages into .venv; test-tf1 uses .venv-tf1.
PYTHON ?= python3
PYTHON37 ?= $(shell command -v python3.7 >/dev/null 2>&1 && python3.7 -c '' 2>/dev/null && echo python3.7 || \
	ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.7.*/bin/python 2>/dev/null | tail -n 1)

run: .venv/ready
	.venv/bin/python main.py

test: .venv/ready-dev lint
	CUDA_VISIBLE_DEVICES= .venv/bin/python -m pytest -q -m 'not slow' -n 2 --dist worksteal

test-slow: .venv/ready-dev
	CUDA_VISIBLE_DEVICES= .venv/bin/python -m pytest -q -m slow

# Runs the GPU tests. Then measures and trains SegNet in each precision (docs/gpu.md); PyTorch is measured too if installed.
DEVICE ?= gpu
SIZE ?= --height 360 --width 480
STEPS ?= 200
REPEATS ?= 50
PRECISIONS ?= float32 bfloat16 float16
gpu-report: SHELL = bash -o pipefail
gpu-report: .venv/ready-dev
	rm -rf Output/gpu-report && mkdir -p Output/gpu-report
	{ status=0; echo '# GPU report'; date; echo '```'; \
	.venv/bin/python -m pytest -q -m gpu -rs tests/test_kernels.py || status=1; \
	for precision in $(PRECISIONS); do flags="--device $(DEVICE) $(SIZE) --precision $$precision"; run=Output/gpu-report/$$precision; \
		.venv/bin/python benchmark.py segnet --what predict train --repeats $(REPEATS) --output $$run-speed $$flags \
			$$(.venv/bin/python -c 'import torch; print("--peer pytorch")' 2>/dev/null) || status=1; \
		.venv/bin/python main.py --steps $(STEPS) --batch_size 2 --output $$run $$flags || status=1; \
		tail -n 3 $$run/log.jsonl; \
	done; echo '```'; exit $$status; } 2>&1 | tee Output/gpu-report.md

# Runs each property test with 100,000 random inputs, and builds 333 training graphs with random flags.
fuzz: .venv/ready-dev
	FUZZ=100000 .venv/bin/python -m pytest -q tests/test_fuzz.py tests/test_data.py -k 'fuzz or rle'

lint: .venv/ready-dev
	.venv/bin/ruff check .

# Draws docs/architecture.png from the list of SegNet's layers.
figure: .venv/ready
	.venv/bin/python -c "import networks; from runs import plots; \
		plots.architecture(networks.network_layers(networks.Spec('segnet', 11)), 'docs/architecture.png')"

test-tf1:
ifeq ($(PYTHON37),)
	@echo 'test-tf1: no python3.7 on the path or in pyenv; TensorFlow 1.15.5 is not tested here'
else
	$(MAKE) .venv-tf1/ready
	.venv-tf1/bin/python -m pytest -q -m 'not slow' -n 2 --dist worksteal -p no:cacheprovider
endif

# If the machine has an NVIDIA driver, this target also installs the CUDA libraries.
# cuDNN 9.10 is the last version with kernels for Pascal and Volta GPUs.
.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	if [ -e /proc/driver/nvidia/version ] || [ -e /usr/lib/wsl/lib/nvidia-smi ]; then \
		sed -e 's/^tensorflow==/tensorflow[and-cuda]==/' -e '$$a nvidia-cudnn-cu12==9.10.2.21' requirements.txt; \
		else cat requirements.txt; fi > .venv/requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r .venv/requirements.txt
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

.venv-tf1/ready: requirements-tf1.txt
	$(PYTHON37) -m venv .venv-tf1
	.venv-tf1/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	.venv-tf1/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-tf1.txt
	touch $@

.PHONY: run test test-slow test-tf1 gpu-report fuzz lint figure
