segment segment=0 kind=weights bytes=1088
segment segment=1 kind=input bytes=16
segment segment=2 kind=output bytes=4
stream stream=0 elem=i16 rows=2 cols=2 chs=2 base=0 pitch_bytes=8 slots=2
stream stream=1 elem=i8 rows=2 cols=2 chs=1 base=64 pitch_bytes=2 slots=2
phase phase=0
  partition partition=0 clusters=1
  load_weights dst=w0x0 src=0 bytes=1088
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+2,0+2,0+2] source=0
    dma_in segment=1 offset=0 row_pitch_bytes=8 pixel_pitch_bytes=4
  stage partition=0 wait_loads=1 mapping=(lanes_reduction:2 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s1[0+2,0+2,0+1] source=0
    conv2d_i16 src=s0[0+2,0+2,0+2] window=(kernel_h:1 kernel_w:1 stride_h:1 stride_w:1 dilation_h:1 dilation_w:1 pad_top:0 pad_bottom:0 pad_left:0 pad_right:0) groups=1 input_zp=0 weight_zp=0 weights=w0x0 bias=w0x8 winograd=false
    rescale16 multipliers=w0x10 shifts=w0x12 per_channel=false input_zp=0 output_zp=0 to=i16
    table_i16 table=w0x20
    rescale multipliers=w0x14 shifts=w0x18 per_channel=false input_zp=0 output_zp=-5 to=i8 double_round=false
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+0,0+0,0+0] source=0
    dma_out src=s1[0+2,0+2,0+1] segment=2 offset=0 row_pitch_bytes=2 pixel_pitch_bytes=1
end_phase
halt
