; RUN: assemble
jump to=3 ; expected-error {{unknown instruction `jump`}}
halt
