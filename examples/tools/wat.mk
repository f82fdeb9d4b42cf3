# Assembles $(NAME).wasm from $(NAME).wat: `make -C examples/greeter/wat`.

include $(dir $(lastword $(MAKEFILE_LIST)))toolchain.mk

.PHONY: all
all: $(NAME).wasm

$(NAME).wasm: $(NAME).wat
	$(PYTHON) $(TOOLS)/assemble.py $< $@
