// Package align judges outgoing mail as the receiving world will.
package align
