# Builds $(NAME).wasm from $(NAME).c and a WIT file with one world: `make -C examples/greeter/c`.

include $(dir $(lastword $(MAKEFILE_LIST)))toolchain.mk

WIT ?= ../wit/world.wit
INCLUDE := $(TOOLS)/../include

.PHONY: all clean
all: $(NAME).wasm

$(NAME).o: $(NAME).c $(INCLUDE)/component.h
	$(ZIG) cc $(WASM_TARGET) -std=c17 -Wall -Wextra -Oz -I$(INCLUDE) -c $< -o $@

$(NAME).wasm: $(NAME).o $(WIT)
	$(COMPONENT_LD) $(LINK_FLAGS) --component-type $(WIT) -o $@ $<

.INTERMEDIATE: $(NAME).o

clean:
	rm -f $(NAME).o
