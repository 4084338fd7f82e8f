"""Operations on cines: best frame, mask propagation, catheter calibration."""
