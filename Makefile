# `make` or `make help` shows what there is.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:

BIN := .venv/bin
# One more than cores: a quarter of the time the tests wait.
WORKERS ?= $(shell echo $$(($$(nproc) + 1)))
TESTS ?= tests

.PHONY: help run dev test chaos bench bench-peers images sbom scan up demo down knative-manifests check lint types imports drift \
	contracts lock clean

help: ## Show this menu
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/run.stamp ## Set everything up, run the sample workflow on the embedded stack, print its result
	@$(BIN)/agentflow dev --sample --exit

dev: .venv/run.stamp ## The same, and stay up: API, functions and servers until Ctrl-C
	@$(BIN)/agentflow dev --sample

# Minutes of containers, and of processes that are killed: only where they are asked for.
APART = tests/chaos tests/deploy
test: .venv/dev.stamp ## Run the tests on real servers (TESTS=tests/wire, WORKERS=4); apart: TESTS=tests/chaos, tests/deploy
	@$(BIN)/pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist loadgroup --quiet --durations 10 -r fEs $(TESTS) \
		$(if $(filter tests,$(TESTS)),$(APART:%=--ignore %))

chaos: .venv/dev.stamp ## Kill, stop, cut and wipe while runs go on; check every invariant (SEED=1 N=500)
	@cd tests && ../$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) --runs $(or $(N),500)

bench: .venv/run.stamp ## Measure every row of what must be reached, beside its goal (ROWS=steps,timers FULL=1)
	@$(BIN)/python tests/bench/rows.py $(if $(ROWS),--rows $(ROWS)) $(if $(FULL),--full)

bench-peers: .venv/run.stamp ## Restate, DBOS and LangGraph beside ours, the same work (PEERS="--rounds 3 --only dbos")
	@PYTHONPATH=tests/bench $(BIN)/python tests/bench/peers $(PEERS)

knative-manifests: ## Print what the production overlay for Knative comes to (needs kustomize)
	@kustomize build infra/knative/overlays/production

images: ## Build the container image of every function: agentflow/FUNCTION:dev (TAG=, BASE=)
	@infra/docker/images.sh

IMAGES = plan dispatch invoke-llm run-tool account-cost api relay bridge
SBOMS = dist/sbom
sbom: .venv/dev.stamp ## What is in the images agentflow/FUNCTION:dev, as CycloneDX in dist/sbom (TAG=)
	@$(BIN)/python infra/supply-chain/sbom.py $(IMAGES:%=agentflow/%:$(or $(TAG),dev)) --out $(SBOMS) \
		$(if $(SOURCE_DATE_EPOCH),--epoch $(SOURCE_DATE_EPOCH))

scan: .venv/dev.stamp ## Vulnerabilities and licences of what `make sbom` found (EXCEPTIONS="FILE ...")
	@$(BIN)/python infra/supply-chain/licences.py $(SBOMS)/*.cdx.json $(EXCEPTIONS:%=--exceptions %)
	@$(BIN)/python infra/supply-chain/scan.py $(SBOMS)/*.cdx.json $(EXCEPTIONS:%=--exceptions %)

# Compose takes a profile that nothing has without a word.
PROFILES_THERE = observability aws cluster
ifneq ($(filter-out $(PROFILES_THERE),$(PROFILES)),)
$(error there is no profile $(filter-out $(PROFILES_THERE),$(PROFILES)): there are $(PROFILES_THERE))
endif
COMPOSE = docker compose --file local/compose.yaml $(foreach profile,$(PROFILES),--profile $(profile))
up: images ## One container per function, PostgreSQL and NATS, until `make down` (PROFILES="observability aws")
	@local/env.sh
	@local/sandbox.sh
	@$(COMPOSE) up --detach --wait $(SCALE)
	@echo "API http://$$($(COMPOSE) port api 8080); its key: $(COMPOSE) exec api cat /var/lib/agentflow/api_key"

demo: ## With `make up`: a run over HTTP and one by a published CloudEvent; their results and costs
	@$(COMPOSE) --profile demo run --rm --no-deps demo

down: ## Stop and remove the containers; data stays in their volumes (VOLUMES=1 removes it)
	@$(COMPOSE) --profile demo --profile observability --profile aws --profile cluster down --remove-orphans $(if $(VOLUMES),--volumes)

check: lint types imports drift ## Lint, types, import contracts, and generated files against their source
	@echo "check: all good"

lint: .venv/dev.stamp
	@$(BIN)/ruff check --quiet --output-format concise

types: .venv/dev.stamp
	@$(BIN)/mypy --no-error-summary

imports: .venv/dev.stamp
	@$(BIN)/lint-imports --no-logo --no-cache

drift: .venv/dev.stamp
	@$(BIN)/python -m agentflow.wire.contracts --check

contracts: .venv/dev.stamp ## Write the generated files: JSON Schemas, examples, catalogue
	@$(BIN)/python -m agentflow.wire.contracts

# Locks name versions and hashes only: no index, no host. `make lock UPGRADE=--upgrade` takes newer versions.
COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make lock' --system-certs $(UPGRADE)
lock: .venv/dev.stamp ## Write requirements.lock and requirements-dev.lock from pyproject.toml
	@$(COMPILE) --extra build --output-file requirements.lock
	@$(COMPILE) --extra build --extra dev --constraints requirements.lock --output-file requirements-dev.lock

clean: ## Delete the virtual environment and every cache; your runs (.agentflow) stay
	@rm -rf .venv .venv.lock .bench-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find functions tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written when its install is complete. What tests need contains what running needs.
.venv/run.stamp: requirements.lock pyproject.toml
	@infra/venv.sh requirements.lock $@

.venv/dev.stamp: requirements-dev.lock pyproject.toml
	@infra/venv.sh requirements-dev.lock $@ && touch .venv/run.stamp
