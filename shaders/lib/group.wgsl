// Settings of the groups of parameters, one row for each block of 64 elements of an arena: [blocks, 2].

// The factor of the learning rate at an element; where it is 0 the element keeps its bits.
fn lr_factor(i: u32) -> f32 { return group_settings[i / 64u * 2u]; }

// The weight decay at an element.
fn weight_decay(i: u32) -> f32 { return group_settings[i / 64u * 2u + 1u]; }
