package cache

// Held returns how many records v holds, expired ones counted.
func (v *Volatile) Held() int { return len(v.records) }
