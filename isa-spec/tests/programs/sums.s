segment segment=0 kind=input bytes=384
segment segment=1 kind=output bytes=320
stream stream=0 elem=i8 rows=6 cols=1 chs=64 base=128 pitch_bytes=64 slots=6
stream stream=1 elem=i8 rows=5 cols=1 chs=64 base={base} pitch_bytes=64 slots=5
phase phase=0
  partition partition=0 clusters=1
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+6,0+1,0+64] source=0
    dma_in segment=0 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
phase phase=1
  partition partition=0 clusters=1
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s1[0+5,0+1,0+64] source=1
    max_pool2d src=s0[0+6,0+1,0+64] window=(kernel_h:2 kernel_w:1 stride_h:1 stride_w:1 dilation_h:1 dilation_w:1 pad_top:0 pad_bottom:0 pad_left:0 pad_right:0)
end_phase
phase phase=2
  partition partition=0 clusters=1
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+0,0+0,0+0] source=2
    dma_out src=s1[0+5,0+1,0+64] segment=1 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
halt
