# make run    builds everything and starts a node on embedded defaults
# make test   all tests: unit, race, kernel, the demo path, a session for every command
# make test-loaded  all tests ten times beside busy processes, four for each processor
# make test-docker  logs that a real Docker daemon keeps, which make test skips where there is none
# make test-prometheus  dashboards and alerts against live programs, with Prometheus: a part of make test
# make test-page  every page of a node in a real browser, Chromium, which make test does without
# make demo   three hosts in network namespaces, one attack, one ban (root)
# make test-hosts  beside real firewalld, ufw, netfilter-persistent and Docker, on booted hosts (root)
# make packages  deb, rpm, apk and Arch packages into dist/; make test-packages tries one on a booted host, make test-guides follows docs/guides
# make image     container images for amd64 and arm64 into dist/, without Docker; make first-contact  a bare host to a dropped packet, and three that pair
# make cross    32-bit tests, builds for other architectures and FreeBSD
# make install  installs binaries and units; make uninstall removes them
# make lint   what CI checks beside the tests
# make suite-fail2ban  fail2ban's own sample suite against our engine
# make recall          attacks of fail2ban's sample logs that our topics find (HUB_TESTS=DIR: CrowdSec's hub too)
# make bench  every benchmark beside its peers; make bench-detect and so on for one
# make sim    a federation with hostile operators, simulated
# make metrics  figures about the code: sizes, comments, and broken lines that the tests notice
# make model  every order of delivery of a small hostile feed: a million states
# make churn  a federation under load and accidents, a disk that stalls among them, for half an hour (root): what was lost, differs, lied, grew;
#             make churn-short  the same for a good minute, and kills at every point of every command, as CI does
# make soak   that, and the property tests for hours; make fuzz  every parser of foreign bytes
# make help   this list

GO := $(shell deploy/go.sh)
export CGO_ENABLED ?= 0
export GOTOOLCHAIN = local
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BUILD = $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"
TOOL = $(GO) tool -modfile=tools/go.mod
# What the tests run for real: sshd, nftables, mosquitto, fail2ban's filters and samples, journald.
TEST_PACKAGES = gcc libc6-dev nftables iproute2 openssh-server openssh-client sshpass mosquitto mosquitto-clients \
	fail2ban sshguard systemd-journal-remote systemd-container ipset iptables openssl python3 rsyslog conntrack procps dovecot-imapd postfix nginx \
	crowdsec-custom-bouncer crowdsec-firewall-bouncer bash-completion haproxy caddy prometheus
# Debian's crowdsec cannot be installed without a network beyond the packages: it is unpacked.
UNPACKED = crowdsec

.PHONY: test-page
.PHONY: vet-client all build run install test test-docker test-prometheus model test-loaded demo lint suite-fail2ban recall bench bench-detect bench-journal bench-firewall bench-latency bench-slow-disk bench-broker bench-broker-more bench-federation bench-policy bench-ledger bench-history bench-gate bench-client bench-compat sim sim-scale docs packages test-packages cross uninstall metrics soak churn churn-short fuzz check deps-run deps-test clean help first-contact test-guides

all: build

build: bin/banmesh bin/banmesh-gate

.PHONY: bin/banmesh bin/banmesh-gate
bin/banmesh bin/banmesh-gate:
	@test -n "$(GO)"
	@$(BUILD) -o $@ ./cmd/$(patsubst banmesh-%,%,$(@F))
	@[ $(@F) != banmesh ] || for name in agent broker; do ln -sf banmesh bin/$$name; done

# Nothing has to be installed to run a node but Go, which deploy/go.sh sees to; nft is only for looking at what it does.
run: build
	@bin/agent run

deps-test:
	@deploy/deps.sh $(TEST_PACKAGES)
	@[ "$$(id -u)" != 0 ] || deploy/unpack.sh .deps $(UNPACKED) || echo "the comparison with crowdsec is skipped" >&2

# Tests that a package needs to be run as root for are skipped without root, and say so.
test: deps-test build
	CGO_ENABLED=1 $(GO) test -race -parallel 8 -timeout 25m ./... banmesh.example/client # many tests wait for what happens, few compute
	$(GO) test -run Hostile ./internal/federation # thousands of seeds, for which the race detector is too slow

# Every order in which brokers can deliver a feed with a thief in it: a million states, some minutes. The tests walk a smaller one.
model:
	$(GO) test -timeout 30m -run TestHostileDelivery ./internal/federation -batches 8 -states 1000000 -v

# Tests wait for what happens, not for a time, so a busy machine changes nothing.
LOADED ?= 10
test-loaded: deps-test build
	GO=$(GO) test/loaded.sh $(LOADED) ./... -- -timeout 60m

# Debian's docker.io is large, so that make test does not ask for it.
test-docker: TEST_PACKAGES += docker.io $(shell apt-cache show docker-cli >/dev/null 2>&1 && echo docker-cli)
test-docker: deps-test
	$(GO) test -count=1 -v ./test/docker

# Traefik is large, so that make test runs its recipe only where it is built.
.PHONY: test-proxies
bin/traefik:
	GO=$(GO) test/compat/traefik.sh $@
test-proxies: deps-test bin/traefik
	$(GO) test -count=1 -v ./test/compat -run AsksAndGoesOn

test-prometheus: deps-test
	$(GO) test -count=1 -v ./test/prometheus

# Debian's Chromium is large, and axe-core comes from npm: make test does without both.
AXE := axe-core@4.14.1
test-page: TEST_PACKAGES = chromium fonts-dejavu-core $(shell command -v npm >/dev/null || echo npm)
test-page: deps-test .deps/axe/axe.min.js
	BANMESH_BROWSER=1 $(GO) test -count=1 -v ./test/page

# README's picture and those that test-page compares with, made anew as root: of a node that is well, in a network namespace of its own.
.PHONY: page-pictures
page-pictures: TEST_PACKAGES = chromium fonts-dejavu-core iproute2
page-pictures: deps-test
	BANMESH_BROWSER=1 $(GO) test -count=1 ./test/page -update -run 'TestEveryPageInABrowser/pictures'

.deps/axe/axe.min.js: | deps-test
	mkdir -p .deps/axe
	cd .deps/axe && tar -xzf "$$(npm pack --silent $(AXE))" --strip-components 1 package/axe.min.js

demo: deps-test build
	@$(GO) run ./test/demo -agent bin/agent -broker bin/broker

# Installs the agent as a service; it starts at the next boot, or with the command that is printed.
DESTDIR ?=
install: build
	install -D -m 0755 bin/banmesh $(DESTDIR)/usr/local/bin/banmesh
	for name in agent broker; do ln -sf banmesh $(DESTDIR)/usr/local/bin/$$name; done
	install -D -m 0755 bin/banmesh-gate $(DESTDIR)/usr/local/bin/banmesh-gate
	install -D -m 0644 deploy/systemd/banmesh-agent.service $(DESTDIR)/etc/systemd/system/banmesh-agent.service
	install -D -m 0644 -t $(DESTDIR)/etc/systemd/system deploy/systemd/banmesh-gate.socket deploy/systemd/banmesh-gate.service
	install -D -m 0644 deploy/systemd/banmesh-ipsets.service $(DESTDIR)/etc/systemd/system/banmesh-ipsets.service
	install -D -m 0644 -t $(DESTDIR)/etc/systemd/system deploy/systemd/banmesh-fetch.service deploy/systemd/banmesh-fetch.timer
	install -D -m 0644 deploy/broker/banmesh-broker.service $(DESTDIR)/etc/systemd/system/banmesh-broker.service
	install -D -m 0644 deploy/systemd/banmesh.sysusers $(DESTDIR)/usr/lib/sysusers.d/banmesh.conf
	install -D -m 0644 deploy/systemd/banmesh.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/banmesh.conf
	@echo "next: systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && systemctl enable --now banmesh-agent"

lint:
	@out=$$($(TOOL) gofumpt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofumpt clean:"; echo "$$out"; exit 1; }
	$(GO) vet ./... banmesh.example/client
	$(TOOL) staticcheck ./... banmesh.example/client
	$(GO) mod tidy -diff
	$(GO) mod verify >/dev/null

# The client is a module of its own, for programs that are built with an older Go: vet and tests with the two before ours. The first run
# fetches them; where that cannot be, it says so.
CLIENT_GO ?= go1.24.10 go1.25.4
vet-client:
	cd client && GOWORK=off $(GO) mod tidy -diff && GOWORK=off $(GO) vet .
	@for v in $(CLIENT_GO); do \
		if ! GOTOOLCHAIN=$$v $(GO) version >/dev/null 2>&1; then echo "skipped: $$v cannot be fetched"; continue; fi; \
		(cd client && GOFLAGS= GOTOOLCHAIN=$$v $(GO) vet . && GOFLAGS= GOTOOLCHAIN=$$v $(GO) test .) || exit 1; done

# fail2ban's own sample suite, from Debian's package, against our engine.
suite-fail2ban: deps-test
	$(GO) test -count=1 -v -run 'Suite' ./test/detect

# How many attacks of fail2ban's sample logs our topics find, and how many lines they find wrongly.
recall: deps-test
	$(GO) test -count=1 -v ./test/recall

# Each prints one line a figure at its end: figure NAME VALUE UNIT aim AIM. One at a time: they measure.
bench-detect: deps-test
	$(GO) run ./test/detect/bench
bench-journal: deps-test
	$(GO) run ./test/journal bench
	$(GO) run ./test/journal latency
bench-firewall: deps-test
	$(GO) run ./test/firewall/bench
bench-latency: deps-test build
	GO=$(GO) test/firewall/latency.sh bin/agent
# Bans in the kernel when an attack ends, beside a disk that takes 30 ms for each write (root).
bench-slow-disk: TEST_PACKAGES += strace
bench-slow-disk: deps-test build
	unshare -n $(GO) run ./test/firewall/slowdisk -agent bin/agent
bench-broker: deps-test build bin/nats-server
	$(GO) run ./test/broker/bench -nats bin/nats-server
# A thousand agents that follow a thousand operators; admission's share; a reader that stalls; others that misbehave.
bench-broker-more: deps-test build bin/nats-server
	$(GO) run ./test/broker/bench -nats bin/nats-server -only followers,admission,stalled,faults -duration 4s
# Which resource of which servers is full first, at 1,000 to 100,000 agents (docs/scale.md).
sim-scale:
	$(GO) run ./test/scale
bench-federation: deps-test build bin/nats-server
	$(GO) run ./test/federation/bench -nats bin/nats-server
	$(GO) test -count=1 -v -run TestAStartBesideAHugePeer ./internal/federation | grep figure
	$(GO) test -count=1 -v -run TestACommunityOfSmallFeeds ./internal/federation -operators 1000 | grep figure
bench-policy:
	$(GO) run ./test/sim/benchpolicy
bench-ledger:
	$(GO) run ./test/ledger/bench
bench-history:
	$(GO) test -run '^$$' -bench History -benchmem ./internal/history
bench-gate:
	$(GO) run ./test/livepeer/benchgate
bench-client:
	$(GO) run ./test/client/bench
bench: bench-detect bench-journal bench-firewall bench-latency bench-broker bench-federation bench-policy bench-ledger bench-history bench-gate bench-client bench-compat

# Hundreds of agents' policy and ledger, a third of the operators hostile; writes docs/simulation.md.
# CrowdSec's bouncers, asked of us and of CrowdSec's own server.
bench-compat: deps-test
	$(GO) run ./test/compat/bench

sim:
	$(GO) run ./test/sim/federation -out docs -check

# Packages for every architecture and format, into dist/; equal sources give equal bytes.
ARCHITECTURES ?= amd64 arm64 armv7 386 riscv64
FORMATS ?= deb rpm apk archlinux
packages:
	@GO=$(GO) deploy/packages/build.sh dist "$(VERSION)" "$(ARCHITECTURES)" "$(FORMATS)"

# Container images as tars that docker, podman and skopeo load, into dist/.
IMAGES ?= amd64 arm64
image:
	@GO=$(GO) deploy/image/build.sh dist "$(VERSION)" "$(IMAGES)"

# A package on a booted host that has nothing of ours: installed, upgraded, removed, purged. The same for every architecture is
# built elsewhere and compared, and the program of each runs.
test-packages: TEST_PACKAGES += curl man-db zsh fish qemu-user-static ansible-core rpm pacman-package-manager docker.io $(shell apt-cache show docker-cli >/dev/null 2>&1 && echo docker-cli)
test-packages: deps-test
	GO=$(GO) $(GO) test -count=1 -v -timeout 20m ./test/packages -packages
	GO=$(GO) $(GO) test -count=1 -v -timeout 10m ./test/docker -run Image -image

# Every command of docs/guides, on booted hosts; the answers that the guides show are compared. With UPDATE=-update they are written.
test-guides: TEST_PACKAGES += curl
test-guides: deps-test
	$(GO) test -count=1 -v -timeout 15m ./test/guides -run TestTheGuidesAreTrue -guides $(UPDATE)

# Beside real firewalld, ufw, netfilter-persistent (with the nftables and the ipset enforcer) and Docker, on booted hosts; each is installed there alone.
.PHONY: test-hosts
test-hosts: TEST_PACKAGES += curl docker.io $(shell apt-cache show docker-cli >/dev/null 2>&1 && echo docker-cli)
test-hosts: deps-test
	deploy/debs.sh .deps/debs firewalld ufw iptables-persistent
	$(GO) test -count=1 -v -timeout 15m ./test/hosts -hosts

# From a bare host to a dropped packet and back, and three hosts that pair.
first-contact: deps-test
	GO=$(GO) $(GO) test -count=1 -v -timeout 20m ./test/packages -packages -run 'ComeAndGo|Pair'

# Other architectures: tests of 32 bits, builds of the rest, the broker for FreeBSD.
PORTABLE = ./internal/ban ./internal/span ./internal/strict ./internal/wire ./internal/policy ./internal/neverban ./internal/store ./internal/ledger
# With -trimpath, as packages are built: their builds find all this in the cache.
cross: export GOFLAGS = -trimpath
cross:
	GOARCH=386 $(GO) vet ./internal/... ./cmd/...
	GOARCH=386 $(GO) test $(PORTABLE)
	for arch in arm64 arm riscv64; do GOARCH=$$arch $(GO) build -o /dev/null ./cmd/banmesh && GOARCH=$$arch $(GO) build -o /dev/null ./cmd/gate || exit 1; done
	GOOS=freebsd $(GO) build -o /dev/null ./cmd/broker

# Removes all that `make install` put there, and leaves configuration, keys and state.
uninstall:
	-[ -n "$(DESTDIR)" ] || systemctl disable --now banmesh-agent banmesh-broker banmesh-gate.socket banmesh-gate banmesh-ipsets banmesh-fetch.timer 2>/dev/null
	-[ -n "$(DESTDIR)" ] || /usr/local/bin/banmesh firewall flush
	for name in banmesh agent broker banmesh-gate; do rm -f $(DESTDIR)/usr/local/bin/$$name; done
	for unit in banmesh-agent.service banmesh-gate.socket banmesh-gate.service banmesh-ipsets.service banmesh-fetch.service banmesh-fetch.timer banmesh-broker.service; do rm -f $(DESTDIR)/etc/systemd/system/$$unit; done
	rm -f $(DESTDIR)/usr/lib/sysusers.d/banmesh.conf $(DESTDIR)/usr/lib/tmpfiles.d/banmesh.conf
	-[ -n "$(DESTDIR)" ] || systemctl daemon-reload
	@echo "left: /etc/banmesh, /var/lib/banmesh, /var/lib/banmesh-fetch, the users banmesh, banmesh-gate and banmesh-fetch"

# The references in docs/ that are made of the program itself.
docs:
	$(GO) run ./deploy/docgen

# Sizes, words of comments, and whether the tests notice lines that are broken on purpose (test/metrics/mutants).
metrics:
	@GO=$(GO) $(GO) run ./test/metrics

# Hours of what the tests do for seconds.
SOAK ?= 1h
CHURN ?= 30m
soak: deps-test churn
	CGO_ENABLED=1 $(GO) test -race -timeout 24h -run Hostile ./internal/federation -soak $(SOAK)
	$(GO) run ./test/journal torture
	$(GO) test -timeout 24h -run HostileBroker -v ./test/federation -hostile $(SOAK)
	$(GO) test -timeout 24h -run HostilePeer -v ./test/federation -hostile $(SOAK)

# A federation under load and accidents: what was lost, what differs between ledger, kernel and peers, and what grew (root).
churn: build
	$(GO) run ./test/churn -bin bin -for $(CHURN)
churn-short:
	$(MAKE) churn CHURN=70s
	$(GO) test -count=1 -run CommandThatLosesItsAgent ./cmd/agent/commands -every-kill

bin/nats-server:
	$(GO) build -C test/broker/nats -trimpath -o $(CURDIR)/$@ github.com/nats-io/nats-server/v2

# Every fuzz target for a while.
FUZZ ?= 10s
fuzz:
	@for p in $$($(GO) list ./internal/... ./topics) client; do \
		dir=.; [ $$p != client ] || { dir=client; p=.; }; \
		for f in $$($(GO) test -C $$dir -list '^Fuzz' $$p 2>/dev/null | grep '^Fuzz'); do \
			echo "$$p $$f"; $(GO) test -C $$dir -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZ) -fuzzminimizetime 10x $$p || exit 1; done; done

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

clean:
	rm -rf bin
