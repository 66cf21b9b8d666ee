//! What several test binaries share; each uses a part.
#![allow(dead_code)]

pub mod backends;
pub mod custom;
pub mod devices;
pub mod golden;
pub mod graphs;
pub mod optimizers;
pub mod random;
