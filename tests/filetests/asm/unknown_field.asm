; RUN: assemble
phase phase=0
  partition partition=0 clusters=1 lanes=3 ; expected-error {{`partition` has no field `lanes`, or it stands twice}}
end_phase
halt
