; RUN: assemble
; TARGET: x1
; A ring of one row cannot hold the two that the pool needs.
; expected-error@unknown {{Deadlock}}
segment segment=0 kind=weights bytes=64
segment segment=1 kind=input bytes=32
segment segment=2 kind=output bytes=12
stream stream=0 elem=i8 rows=4 cols=4 chs=2 base=0 pitch_bytes=8 slots=2
stream stream=1 elem=i8 rows=4 cols=4 chs=3 base=64 pitch_bytes=16 slots=1
stream stream=2 elem=i8 rows=2 cols=2 chs=3 base=128 pitch_bytes=16 slots=1
phase phase=0
  partition partition=0 clusters=1
  partition partition=1 clusters=1
  load_weights dst=w0x0 src=0 bytes=64
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+4,0+4,0+2] source=0
    dma_in segment=1 offset=0 row_pitch_bytes=8 pixel_pitch_bytes=2
  stage partition=0 wait_loads=1 mapping=(lanes_reduction:2 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s1[0+4,0+4,0+3] source=1
    conv2d src=s0[0+4,0+4,0+2] window=(kernel_h:1 kernel_w:1 stride_h:1 stride_w:1 dilation_h:1 dilation_w:1 pad_top:0 pad_bottom:0 pad_left:0 pad_right:0) groups=1 input_zp=1 weight_zp=0 weights=w0x0 bias=w0x8 winograd=false
    rescale multipliers=w0x14 shifts=w0x18 per_channel=false input_zp=0 output_zp=-3 to=i8 double_round=false
    clamp min=-100 max=100
  stage partition=1 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s2[0+2,0+2,0+3] source=2 ; pool
    max_pool2d src=s1[0+4,0+4,0+3] window=(kernel_h:2 kernel_w:2 stride_h:2 stride_w:2 dilation_h:1 dilation_w:1 pad_top:0 pad_bottom:0 pad_left:0 pad_right:0)
  stage partition=0 wait_loads=0 mapping=(lanes_reduction:1 clusters_reduction:1 clusters_channels:1 clusters_pixels:1) out=s0[0+0,0+0,0+0] source=0
    dma_out src=s2[0+2,0+2,0+3] segment=2 offset=0 row_pitch_bytes=6 pixel_pitch_bytes=3
end_phase
halt
