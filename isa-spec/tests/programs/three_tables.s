segment segment=0 kind=input bytes=256
segment segment=1 kind=weights bytes=768
segment segment=2 kind=output bytes=256
segment segment=3 kind=scratch bytes=256
stream stream=0 elem=i8 rows=4 cols=1 chs=64 base=0 pitch_bytes=64 slots=2
stream stream=1 elem=i8 rows=4 cols=1 chs=64 base=128 pitch_bytes=64 slots=1
stream stream=2 elem=i8 rows=4 cols=1 chs=64 base=0 pitch_bytes=64 slots=2
stream stream=3 elem=i8 rows=4 cols=1 chs=64 base=128 pitch_bytes=64 slots=4
stream stream=4 elem=i8 rows=4 cols=1 chs=64 base=0 pitch_bytes=64 slots=1
phase phase=0
  partition partition=0 clusters=1
  load_weights dst=w{a} src=0 bytes=256
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+4,0+1,0+64] source=0
    dma_in segment=0 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
  stage partition=0 wait_loads=1 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s1[0+4,0+1,0+64] source=1
    load src=s0[0+4,0+1,0+64]
    table table=w{a}
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+0,0+0,0+0] source=2
    dma_out src=s1[0+4,0+1,0+64] segment=3 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
phase phase=1
  partition partition=0 clusters=1
  load_weights dst=w{b} src=256 bytes=256
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s2[0+4,0+1,0+64] source=3
    dma_in segment=3 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
  stage partition=0 wait_loads=2 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s3[0+4,0+1,0+64] source=4
    load src=s2[0+4,0+1,0+64]
    table table=w{b}
end_phase
phase phase=2
  partition partition=0 clusters=1
  load_weights dst=w{c} src=512 bytes=256
  stage partition=0 wait_loads=3 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s4[0+4,0+1,0+64] source=5
    load src=s3[0+4,0+1,0+64]
    table table=w{c}
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+0,0+0,0+0] source=6
    dma_out src=s4[0+4,0+1,0+64] segment=2 offset=0 row_pitch_bytes=64 pixel_pitch_bytes=64
end_phase
halt
