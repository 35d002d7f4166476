//! shell: the rules of the workspace that no compiler checks, as tests: who may use whom, how files begin, how long they are.
//! It reads the checkout and nothing else.
