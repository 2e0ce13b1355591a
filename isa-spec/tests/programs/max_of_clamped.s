segment segment=0 kind=input bytes=768
segment segment=1 kind=input bytes=384
segment segment=2 kind=output bytes=704
segment segment=3 kind=output bytes=384
segment segment=4 kind=scratch bytes=768
stream stream=0 elem=i8 rows=12 cols=1 chs=64 base=0 pitch_bytes=64 slots=1
stream stream=1 elem=i8 rows=12 cols=1 chs=64 base=64 pitch_bytes=64 slots=1
stream stream=2 elem=i8 rows=6 cols=1 chs=64 base=0 pitch_bytes=64 slots=1
stream stream=3 elem=i8 rows=6 cols=1 chs=64 base=64 pitch_bytes=64 slots=1
stream stream=4 elem=i8 rows=11 cols=1 chs=64 base=0 pitch_bytes=64 slots=1
stream stream=5 elem=i8 rows=3 cols=1 chs=64 base={prefix} pitch_bytes=64 slots=3
stream stream=6 elem=i8 rows=12 cols=1 chs=64 base={ring} pitch_bytes=64 slots=4
prefix prefix=5 rows=3
phase phase=0
  partition partition=0 clusters=1
  {stage} out=s0[0+12,0+1,0+64] source=0
    dma_in segment=0 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
  {stage} out=s1[0+12,0+1,0+64] source=1
    load src=s0[0+12,0+1,0+64]
    clamp min=-90 max=90
  {stage} out=s0[0+0,0+0,0+0] source=2
    dma_out src=s1[0+12,0+1,0+64] segment=4 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
  {early}
end_phase
phase phase=1
  partition partition=0 clusters=1
  {stage} out=s2[0+6,0+1,0+64] source=3
    dma_in segment=1 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
  {stage} out=s3[0+6,0+1,0+64] source=4
    load src=s2[0+6,0+1,0+64]
  {stage} out=s0[0+0,0+0,0+0] source=5
    dma_out src=s3[0+6,0+1,0+64] segment=3 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
  {ahead}
end_phase
phase phase=2
  partition partition=0 clusters=1
  {stage} out=s6[{first}+{rest},0+1,0+64] source=6
    dma_in segment=4 offset={offset} row_pitch_bytes=64 pixel_pitch_bytes=64
  {stage} out=s4[0+11,0+1,0+64] source=7
    max_pool2d src=s6[0+12,0+1,0+64] window=(kernel_h:2 kernel_w:1 stride_h:1 stride_w:1 dilation_h:1 dilation_w:1 pad_top:0 pad_bottom:0 pad_left:0 pad_right:0)
  {stage} out=s0[0+0,0+0,0+0] source=8
    dma_out src=s4[0+11,0+1,0+64] segment=2 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
halt
