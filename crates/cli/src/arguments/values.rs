//! Values in words, read before anything starts.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use kiln_nn::{Augment, OnOom, Recipe};

use super::BatchSize;

/// A whole number of a range.
pub(crate) fn whole<T: FromStr + PartialOrd + Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    RangeInclusive<T>: Clone + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("give a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A whole number from 1 to `most`.
pub(crate) fn at_least_one(
    most: u32,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    whole(1..=most)
}

/// What random numbers begin with.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    whole(0..=u64::MAX)(text)
}

/// What to do where a batch does not fit.
pub(crate) fn on_oom(text: &str) -> Result<OnOom, String> {
    match text.to_ascii_lowercase().as_str() {
        "fail" => Ok(OnOom::Fail),
        "split" => Ok(OnOom::Split),
        _ => Err("give fail or split".into()),
    }
}

/// `auto`, or a whole number of at least 1.
pub(crate) fn batch_size(text: &str) -> Result<BatchSize, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(BatchSize::Auto);
    }
    let rows = whole(1..=Recipe::MAX_BATCH_SIZE)(text);
    rows.map(BatchSize::Rows).map_err(|message| format!("{message}, or auto"))
}

/// `2GiB`, `500 MiB`, `1.5G` or a number of bytes.
pub(crate) fn memory_size(text: &str) -> Result<u64, String> {
    let wrong = || "not a size of memory: give a number with KiB, MiB, GiB or TiB, as 2GiB".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let shift = match text[digits..].trim().to_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let bytes = number * (1u64 << shift) as f64;
    if (1.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// `rotation = 10, zoom = 0.1`, or whose settings to take.
pub(crate) fn augment(text: &str) -> Result<Augment, String> {
    match text.trim() {
        "none" | "" => Ok(Augment::default()),
        text if text.contains('=') => text.parse().map_err(|error: kiln_nn::NnError| error.to_string()),
        name => match Recipe::open(name).map_err(|error| error.to_string())?.augment {
            Some(augment) => Ok(augment),
            None => Err(format!("recipe \"{name}\" does not change pictures")),
        },
    }
}

/// A finite number above 0 that `f32` can hold.
pub(crate) fn learning_rate(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(rate) if (rate as f32).is_finite() && rate as f32 > 0.0 => Ok(rate),
        Ok(_) => Err("a learning rate is a finite number above 0".into()),
        Err(_) => Err("not a number; a learning rate is a finite number above 0".into()),
    }
}

/// A number between 0 and 1, without either.
pub(crate) fn part(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(part) if part > 0.0 && part < 1.0 => Ok(part),
        _ => Err("a part is a number between 0 and 1".into()),
    }
}
