//! Kiln trains neural networks on any GPU.
