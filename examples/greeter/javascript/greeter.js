// demo:greeter/greet in JavaScript: one exported object for each exported interface.

export const greet = {
  hello(name) {
    return `Hello, ${name}!`;
  },
};
