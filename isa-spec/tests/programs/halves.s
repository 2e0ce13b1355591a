segment segment=0 kind=input bytes=384
segment segment=1 kind=output bytes=384
stream stream=0 elem=i8 rows=6 cols=1 chs=64 base=64 pitch_bytes=64 slots=6
stream stream=1 elem=i8 rows=6 cols=1 chs=64 base={base} pitch_bytes=64 slots=6
phase phase=0
  partition partition=0 clusters=1
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+6,0+1,0+64] source=0
    dma_in segment=0 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
phase phase=1
  partition partition=0 clusters=1
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s1[0+6,0+1,0+32] source=1
    load src=s0[0+6,0+1,0+32]
    clamp min=-5 max=5
end_phase
phase phase=2
  partition partition=0 clusters=1
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s1[0+6,0+1,32+32] source=2
    load src=s0[0+6,0+1,{second}+32]
    clamp min=-5 max=5
end_phase
phase phase=3
  partition partition=0 clusters=1
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+0,0+0,0+0] source=3
    dma_out src=s1[0+6,0+1,0+64] segment=1 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
halt
