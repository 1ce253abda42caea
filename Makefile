# Avix: one non-recursive build. `make help` lists the targets.
#
#   DEV=1            warnings are errors          SAN=address,undefined  sanitizers, own build folder
#   CC=clang-14      other compiler, own folder   PREFIX= DESTDIR=       for make install
VERSION := 1.0.0
PREFIX  ?= /usr/local
DESTDIR ?=
ifeq ($(origin CC),default)
CC := gcc
endif
empty :=
space := $(empty) $(empty)
comma := ,
BUILD ?= build$(if $(filter clang%,$(notdir $(CC))),-clang)$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(COVERAGE),-cov)$(if $(TESTCLOCK),-clock)

# room : program : libraries beyond libavix and json-c (pkg-config names, or -l flags)
ROOMS := router authsvc memfs llmsvc execsvc gateway cli kernel/init kernel/core kernel/agent
PROG_router       := avix-router
PROG_authsvc      := avix-authsvc
PROG_memfs        := avix-memfs
PROG_llmsvc       := avix-llmsvc
PROG_execsvc      := avix-execsvc
PROG_gateway      := avix-gateway
PROG_cli          := avix
PROG_kernel/init  := avix-init
PROG_kernel/core  := avix-kernel
PROG_kernel/agent := avix-agent
LIBS_llmsvc       := libcurl
LIBS_gateway      := libwebsockets libuv
LIBS_cli          := libwebsockets
LIBS_kernel/core  := sqlite3

PKGS_ALL := json-c libevent_core libcrypto yaml-0.1 libseccomp libargon2
cflags_of = $(shell pkg-config --cflags $(1) 2>/dev/null)
libs_of   = $(shell pkg-config --libs $(1) 2>/dev/null)
CF_ALL := $(call cflags_of,$(PKGS_ALL) libcurl libwebsockets libuv sqlite3)
LF_ALL := $(call libs_of,$(PKGS_ALL)) -largon2 -lm

WARN := -Wall -Wextra -Wshadow -Wformat=2 -Wundef -Wvla -Wwrite-strings -Wpointer-arith -Wcast-qual \
  -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wimplicit-fallthrough -Wswitch-enum
OPT  ?= -O2
CFLAGS_ALL := -std=gnu17 -g $(OPT) $(WARN) $(if $(DEV),-Werror) -fno-common -fstack-protector-strong -fPIE \
  $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -DAVIX_SAN=1,-D_FORTIFY_SOURCE=2) \
  $(if $(COVERAGE),--coverage -fprofile-update=atomic -O0 -DAVIX_COVERAGE=1) $(if $(TESTCLOCK),-DAVIX_TEST_CLOCK) \
  -D_GNU_SOURCE -DAVIX_VERSION=\"$(VERSION)\" -I. -include common/base/banned.h $(CF_ALL) $(CFLAGS)
LDFLAGS_ALL := -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(if $(SAN),-fsanitize=$(SAN)) $(if $(COVERAGE),--coverage -Wl$(comma)--wrap=kill$(comma)--wrap=_exit$(comma)-u$(comma)avix_coverage) $(LDFLAGS)

src_of = $(wildcard $(1)/*.c) $(if $(filter cli,$(1)),$(wildcard cli/client/*.c cli/tui/*.c))
obj_of = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

COMMON_SRC := $(wildcard common/base/*.c common/ipc/*.c common/svc/*.c)
LIBAVIX    := $(BUILD)/libavix.a
RIG_SRC    := $(wildcard tests/rig/*.c)
LIBRIG     := $(BUILD)/librig.a
BIN        := $(BUILD)/bin
ROOMS_HERE := $(foreach r,$(ROOMS),$(if $(wildcard $(r)/main.c),$(r)))
PROGS      := $(foreach r,$(ROOMS_HERE),$(BIN)/$(PROG_$(r)))
# Programs that tests start as doubles: one folder each under tests/rig/
DOUBLES     := $(foreach d,$(wildcard tests/rig/*/main.c),$(BIN)/test-$(notdir $(patsubst %/main.c,%,$(d))))
UNIT_TESTS  := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/*/test_*.c tests/unit/*/*/test_*.c))
SUITE_TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/suite/test_*.c tests/suite/*/test_*.c))
BENCH_SRC   := $(wildcard tests/bench/*.c)
FUZZERS     := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: all tests check check-unit check-suite check-san check-clang check-rules check-includes check-headers \
  check-size check-format check-tidy bench fuzz fuzz-smoke coverage install clean help
.DELETE_ON_ERROR:
.SECONDARY:

all: $(PROGS)
tests: all $(DOUBLES) $(UNIT_TESTS) $(SUITE_TESTS)

help:
	@echo "make [all|tests|check|check-unit|check-suite|check-san|check-clang|check-rules|check-tidy|bench|fuzz|fuzz-smoke|coverage|install|clean]"
	@echo "variables: DEV=1 SAN=address,undefined CC=clang-14 PREFIX=$(PREFIX) DESTDIR= BUILD=$(BUILD)"

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -MMD -MP -c $< -o $@

# Objects are made again when the flags change.
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo '$(CC) $(subst ",,$(CFLAGS_ALL))' | cmp -s - $@ || echo '$(CC) $(subst ",,$(CFLAGS_ALL))' > $@
.PHONY: FORCE
FORCE:

$(LIBAVIX): $(call obj_of,$(COMMON_SRC))
	@rm -f $@
	ar rcs $@ $^
$(LIBRIG): $(call obj_of,$(RIG_SRC))
	@rm -f $@
	ar rcs $@ $^

# One program per room; its objects without main.o are an archive that unit tests link too.
define room_rules
$(BUILD)/room-$(subst /,-,$(1)).a: $(filter-out $(BUILD)/obj/$(1)/main.o,$(call obj_of,$(call src_of,$(1))))
	@rm -f $$@
	ar rcs $$@ $$^
$(BIN)/$(PROG_$(1)): $(BUILD)/obj/$(1)/main.o $(BUILD)/room-$(subst /,-,$(1)).a $(LIBAVIX)
	@mkdir -p $$(@D)
	$(CC) $$^ $(LDFLAGS_ALL) $(if $(LIBS_$(1)),$(call libs_of,$(LIBS_$(1)))) $(LF_ALL) -o $$@
$(BUILD)/tests/unit/$(1)/%: $(BUILD)/obj/tests/unit/$(1)/%.o $(BUILD)/room-$(subst /,-,$(1)).a $(LIBRIG) $(LIBAVIX)
	@mkdir -p $$(@D)
	$(CC) $$^ $(LDFLAGS_ALL) $(if $(LIBS_$(1)),$(call libs_of,$(LIBS_$(1)))) $(LF_ALL) -lcmocka -o $$@
endef
$(foreach r,$(ROOMS_HERE),$(eval $(call room_rules,$(r))))

$(BUILD)/tests/unit/common/%: $(BUILD)/obj/tests/unit/common/%.o $(LIBRIG) $(LIBAVIX)
	@mkdir -p $(@D)
	$(CC) $^ $(LDFLAGS_ALL) $(LF_ALL) -lcmocka -o $@
$(BUILD)/tests/suite/%: $(BUILD)/obj/tests/suite/%.o $(LIBRIG) $(LIBAVIX)
	@mkdir -p $(@D)
	$(CC) $^ $(LDFLAGS_ALL) $(call libs_of,libwebsockets sqlite3) $(LF_ALL) -lcmocka -o $@
define double_rules
$(BIN)/test-$(1): $(call obj_of,$(wildcard tests/rig/$(1)/*.c)) $(LIBRIG) $(LIBAVIX)
	@mkdir -p $$(@D)
	$(CC) $$^ $(LDFLAGS_ALL) $(LF_ALL) -o $$@
endef
$(foreach d,$(wildcard tests/rig/*/main.c),$(eval $(call double_rules,$(notdir $(patsubst %/main.c,%,$(d))))))

# --- checks ---------------------------------------------------------------------------------------
CHECK_JOBS ?= 4
check:
	tests/check
check-unit: all $(DOUBLES) $(UNIT_TESTS)
	tests/run -j $(CHECK_JOBS) -b $(CURDIR)/$(BIN) $(UNIT_TESTS)
check-suite: all $(DOUBLES) $(SUITE_TESTS)
	tests/run -j $(CHECK_JOBS) -b $(CURDIR)/$(BIN) $(SUITE_TESTS)
check-rules: check-includes check-headers check-size check-format

check-includes: # a room sees common/ and itself; base < ipc < svc; one wrapper for each event library
	@bad=0; for r in $(ROOMS); do for o in $(ROOMS); do [ $$o = $$r ] && continue; \
	  grep -rHn "^#include \"$$o/" $$r && bad=1; done; \
	  grep -rHn "^#include \"$$r/" common && bad=1; done; \
	grep -rHn '^#include "common/\(ipc\|svc\)/' common/base && bad=1; \
	grep -rHn '^#include "common/svc/' common/ipc && bad=1; \
	grep -rHn '^#include <event2/' --include='*.[ch]' . | grep -v '^./common/ipc/loop_ev.c:' && bad=1; exit $$bad
check-headers: # every header compiles alone
	@for h in $$(find common $(ROOMS) tests/rig -name '*.h'); do \
	  echo "#include \"$$h\"" | $(CC) $(filter-out -MMD -MP,$(CFLAGS_ALL)) -Werror -x c -fsyntax-only - || exit 1; done
check-size: # files <= 1200 lines, headers <= 350, main.c <= 60
	@find common $(ROOMS) tests -name '*.c' | xargs wc -l | awk '$$2!="total" && $$1>1200 {print; b=1} END {exit b}'
	@find $(ROOMS) -name main.c | xargs -r wc -l | awk '$$2!="total" && $$1>60 {print; b=1} END {exit b}'
check-format:
	@find common $(ROOMS) tests -name '*.[ch]' | xargs clang-format --dry-run -Werror
check-tidy: # clang-tidy over every room; the flags come last, so the files go through a shell
	@find common $(ROOMS) -name '*.c' | xargs -P 2 -n 6 sh -c 'clang-tidy --quiet "$$@" -- \
	  $(CFLAGS_ALL) -Wno-unknown-warning-option 2>/dev/null' tidy

bench: all $(DOUBLES) $(BUILD)/bench $(BUILD)/bench-router
	$(BUILD)/bench $(CURDIR)/$(BIN)
$(BUILD)/bench: $(call obj_of,$(BENCH_SRC)) $(LIBRIG) $(LIBAVIX)
	$(CC) $^ $(LDFLAGS_ALL) $(call libs_of,libwebsockets) $(LF_ALL) -o $@

# The router's tables, measured in a program that links its room
$(BUILD)/bench-router: $(call obj_of,tests/bench/router/main.c tests/bench/measure.c) $(BUILD)/room-router.a $(LIBRIG) $(LIBAVIX)
	$(CC) $^ $(LDFLAGS_ALL) $(call libs_of,libwebsockets) $(LF_ALL) -o $@

FUZZ_CC    ?= clang-14
FUZZ_FLAGS := -std=gnu17 -g -O1 -fsanitize=address,undefined -D_GNU_SOURCE -DAVIX_VERSION=\"$(VERSION)\" -DAVIX_SAN=1 \
  -I. -include common/base/banned.h $(CF_ALL)
FUZZ_LIB   := $(BUILD)/fuzz/libavix.a
$(BUILD)/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c $< -o $@
$(FUZZ_LIB): $(patsubst %.c,$(BUILD)/fuzz/obj/%.o,$(COMMON_SRC))
	@rm -f $@
	ar rcs $@ $^
# The room's sources that a target needs stand in its line "// links:".
define fuzz_rules
$(BUILD)/fuzz/$(1): $(BUILD)/fuzz/obj/tests/fuzz/$(1).o $(patsubst %.c,$(BUILD)/fuzz/obj/%.o,$(shell sed -n 's|^// links: ||p' tests/fuzz/$(1).c)) $(FUZZ_LIB)
	$(FUZZ_CC) -fsanitize=fuzzer,address,undefined $$^ $(LF_ALL) -o $$@
endef
$(foreach f,$(notdir $(FUZZERS)),$(eval $(call fuzz_rules,$(f))))
fuzz: $(FUZZERS)
FUZZ_SECONDS ?= 30
fuzz-smoke: fuzz
	@for f in $(FUZZERS); do n=$$(basename $$f); d=$$(mktemp -d); mkdir -p tests/fuzz/corpus/$$n; \
	  $$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=0 -verbosity=0 $$d tests/fuzz/corpus/$$n || exit 1; rm -rf $$d; done

coverage:
	tests/coverage

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/avix $(DESTDIR)$(PREFIX)/share/avix
	install -m 0755 $(BIN)/avix $(DESTDIR)$(PREFIX)/bin/avix
	for p in $(filter-out avix,$(notdir $(PROGS))); do install -m 0711 $(BIN)/$$p $(DESTDIR)$(PREFIX)/libexec/avix/ || exit 1; done
	cp -r gateway/web $(DESTDIR)$(PREFIX)/share/avix/
	cp -r packaging/agents $(DESTDIR)$(PREFIX)/share/avix/

clean:
	rm -rf build build-*

-include $(shell find $(BUILD)/obj $(BUILD)/fuzz/obj -name '*.d' 2>/dev/null)
