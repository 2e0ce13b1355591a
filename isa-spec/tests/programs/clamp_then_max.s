segment segment=0 kind=input bytes=768
segment segment=1 kind=output bytes=704
segment segment=2 kind=scratch bytes=768
stream stream=0 elem=i8 rows=12 cols=1 chs=64 base=0 pitch_bytes=64 slots=1
stream stream=1 elem=i8 rows=4 cols=1 chs=64 base={prefix} pitch_bytes=64 slots=4
stream stream=2 elem=i8 rows=12 cols=1 chs=64 base=64 pitch_bytes=64 slots=1
prefix prefix=1 rows=4
stream stream=3 elem=i8 rows=12 cols=1 chs=64 base={ring} pitch_bytes=64 slots=2
prefix prefix=1 rows=4
stream stream=4 elem=i8 rows=11 cols=1 chs=64 base=128 pitch_bytes=64 slots=1
phase phase=0
  partition partition=0 clusters=1
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+12,0+1,0+64] source=0
    dma_in segment=0 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s2[0+12,0+1,0+64] source=1
    load src=s0[0+12,0+1,0+64]
    clamp min=-90 max=90
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+0,0+0,0+0] source=2
    dma_out src=s2[{stored}+8,0+1,0+64] segment=2 offset={offset} row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
phase phase=1
  partition partition=0 clusters=1
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s3[4+8,0+1,0+64] source=3
    dma_in segment=2 offset=256 row_pitch_bytes=64 pixel_pitch_bytes=64
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s4[0+11,0+1,0+64] source=4
    max_pool2d src=s3[0+12,0+1,0+64] window=(kernel_h:2 kernel_w:1 stride_h:1 stride_w:1 dilation_h:1 dilation_w:1 pad_top:0 pad_bottom:0 pad_left:0 pad_right:0)
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+0,0+0,0+0] source=5
    dma_out src=s4[0+11,0+1,0+64] segment=1 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
halt
