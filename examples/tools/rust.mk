# Builds $(NAME).wasm with cargo: `make -C examples/greeter/rust`.
# Once, before: `rustup target add wasm32-wasip2`.

CARGO ?= cargo
CARGO_FLAGS ?=
CARGO_TARGET_DIR ?= target
TARGET ?= wasm32-wasip2

.PHONY: all clean
all: $(NAME).wasm

$(NAME).wasm: Cargo.toml Cargo.lock $(wildcard src/*.rs) $(wildcard ../wit/*.wit)
	$(CARGO) build --release --locked --target $(TARGET) $(CARGO_FLAGS)
	cp $(CARGO_TARGET_DIR)/$(TARGET)/release/$(subst -,_,$(NAME)).wasm $@

clean:
	rm -rf target
