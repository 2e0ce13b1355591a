segment segment=0 kind=weights bytes=64
segment segment=1 kind=input bytes=24
segment segment=2 kind=output bytes=6
stream stream=0 elem=i32 rows=1 cols=3 chs=2 base=0 pitch_bytes=24 slots=1
stream stream=1 elem=i8 rows=1 cols=3 chs=2 base=64 pitch_bytes=6 slots=1
phase phase=0
  partition partition=0 clusters=1
  load_weights dst=w0x0 src=0 bytes=64
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+1,0+3,0+2] source=0
    dma_in segment=1 offset=0 row_pitch_bytes=24 pixel_pitch_bytes=8
  stage partition=0 wait_loads=1 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s1[0+1,0+3,0+2] source=0
    load src=s0[0+1,0+3,0+2]
    rescale_by_sign multipliers=w0x0 shifts=w0x8 multipliers_below=w0x10 shifts_below=w0x18 per_channel=true output_zp=3 to=i8 double_round=false
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+0,0+0,0+0] source=0
    dma_out src=s1[0+1,0+3,0+2] segment=2 offset=0 row_pitch_bytes=6 pixel_pitch_bytes=2
end_phase
halt
