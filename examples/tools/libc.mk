# Builds $(NAME).wasm from $(NAME).c with a libc on WASI: ADAPTER is `command` (has a main) or `reactor`.

include $(dir $(lastword $(MAKEFILE_LIST)))toolchain.mk

EXECUTION_MODEL := -mexec-model=$(ADAPTER)

.PHONY: all clean
all: $(NAME).wasm

# The first build takes half a minute: Zig compiles its libc once.
$(NAME).core.wasm: $(NAME).c
	$(ZIG) cc -target wasm32-wasi $(EXECUTION_MODEL) -std=gnu17 -Wall -Wextra -Oz -Wl,--strip-all -o $@ $<

# Adds the adapter that turns the libc's WASI 0.1 calls into WASI 0.2 imports.
$(NAME).wasm: $(NAME).core.wasm $(WIT)
	FINISHED_MODULE=$< $(RUST_TOOLS)/wasm-component-ld --wasm-ld-path $(TOOLS)/finished-module-ld \
	  --wasi-adapter $(ADAPTER) $(if $(WIT),--component-type $(WIT)) -o $@ $<

.INTERMEDIATE: $(NAME).core.wasm

clean:
	rm -f $(NAME).core.wasm
