"""SUN beside public packs, run unchanged: what each row of docs/compatibility.md measures."""
