"""The precision that a model is served in: which passes, and which nodes stay in FP32."""
