"""demo:greeter/greet in Python: one class for each exported interface."""

from wit_world import exports


class Greet(exports.Greet):
    def hello(self, name: str) -> str:
        return f"Hello, {name}!"
