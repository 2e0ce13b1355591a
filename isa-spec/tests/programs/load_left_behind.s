segment segment=0 kind=weights bytes=1200
segment segment=1 kind=input bytes=64
segment segment=2 kind=output bytes=64
stream stream=0 elem=i8 rows=1 cols=1 chs=64 base=0 pitch_bytes=64 slots=1
stream stream=1 elem=i8 rows=1 cols=1 chs=64 base=64 pitch_bytes=64 slots=1
phase phase=0
  partition partition=0 clusters=1
  load_weights dst=w0x0 src=0 bytes=200
  load_weights dst=w0x100 src=200 bytes=1000
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+1,0+1,0+64] source=0
    dma_in segment=1 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
phase phase=1
  partition partition=0 clusters=1
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s1[0+1,0+1,0+64] source=1
    load src=s0[0+1,0+1,0+64]
    clamp min=-90 max=90
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+0,0+0,0+0] source=2
    dma_out src=s1[0+1,0+1,0+64] segment=2 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
halt
