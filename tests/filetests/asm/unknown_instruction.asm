; RUN: assemble
jump to=3 ; EXPECT-ERROR: unknown instruction `jump`
halt
