# One way to do each thing. `make test` is what CI runs.
GO ?= go
FUZZTIME ?= 3s
VERSION ?=
LDFLAGS := -s -w $(if $(VERSION),-X main.version=$(VERSION))

.PHONY: all build run test unit lint fuzz e2e roots bench demo clean

all: build

build:
	@echo 'building (a minute or two the first time)…'
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/postseal ./cmd/postseal

# The daemon on built-in defaults, as whoever calls it.
run: build
	@echo 'main.cf:  smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:postseal'
	@echo 'try:      postmap -q gmail.com socketmap:inet:127.0.0.1:8463:postseal'
	@echo '          (no output: no policy of its own, smtp_tls_security_level of main.cf decides)'
	@echo '          bin/postseal explain gmail.com'
	@echo 'end:      Ctrl-C'
	@echo
	@exec bin/postseal serve

# Everything that CI runs. As root on Debian it installs what it needs;
# elsewhere it names what it could not run and why.
test:
	@sh .ci/setup
	$(MAKE) lint unit fuzz e2e

unit:
	$(GO) test -race -shuffle=on -timeout 25m $$($(GO) list ./... | grep -v /e2e)

# go.mod must be tidy. Whether go.sum is whole is for the build to say: what tidy would add to it are sums of the
# tests of other modules, and a proxy may not have all of those.
lint:
	@files=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$files" ]; then echo "not gofmt'ed: $$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...
	@! $(GO) mod tidy -e -diff 2>&1 | sed -n '/^diff current.go.mod/,/^diff current.go.sum/p' | grep . || { echo 'go.mod is not tidy: go mod tidy'; exit 1; }

# Every fuzz test for a short time; a finding fails. The fuzzer of Go now and then ends its own time with
# "context deadline exceeded" and no input that fails: that is no finding.
fuzz:
	@out=$$(mktemp); trap 'rm -f "$$out"' EXIT; \
	$(GO) test -list '^Fuzz' ./... >"$$out" || { cat "$$out"; exit 1; }; \
	list=$$(awk '/^Fuzz/ {names[n++] = $$1} $$1 == "ok" {for (i = 0; i < n; i++) print $$2, names[i]; n = 0}' "$$out"); \
	test -n "$$list" || { echo "no fuzz tests found"; exit 1; }; \
	echo "$$list" | \
	while read -r package name; do \
		echo "fuzz $$package $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$package" >"$$out" 2>&1 && continue; \
		cat "$$out"; \
		grep -q 'context deadline exceeded' "$$out" && ! grep -q 'Failing input' "$$out" || exit 1; \
	done

# Stories against real Postfix, in namespaces of their own.
e2e: build
	$(GO) test -count=1 -timeout 40m ./e2e/...

roots:
	sh e2e/roots.sh

# The bars, as ratios within one run.
bench:
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./policy ./policy/socketmap ./policy/delegation ./cmd/postseal ./milter/dkim
	$(GO) test -run '^$$' -bench . -timeout 30m ./cache/... ./internal/resolver/... ./milter

# A dozen destinations, delivered to by a stock Postfix and by one with postseal.
demo: build
	$(GO) run ./e2e/demo

clean:
	rm -rf bin
