//! Times as people read them.

use replicore_types::Time;
use std::fmt;

/// Shows a time as `2021-05-06 19:17:10.000000005 UTC`.
pub(super) struct Utc(pub Time);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.0 / 1_000_000_000, self.0.0 % 1_000_000_000);
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")?;
        if nanos != 0 {
            write!(f, ".{nanos:09}")?;
        }
        f.write_str(" UTC")
    }
}

/// Year, month and day of a day counted from 1970-01-01. Years are taken to begin in March, so that the leap day comes
/// last, and in eras of 400 years, which all have as many days.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_dates() {
        for (nanos, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (1_620_328_630_000_000_005, "2021-05-06 19:17:10.000000005 UTC"),
            (951_782_400_000_000_000, "2000-02-29 00:00:00 UTC"),
            (1_735_689_599_000_000_000, "2024-12-31 23:59:59 UTC"),
            (u64::MAX, "2554-07-21 23:34:33.709551615 UTC"),
        ] {
            assert_eq!(Utc(Time(nanos)).to_string(), text);
        }
    }
}
