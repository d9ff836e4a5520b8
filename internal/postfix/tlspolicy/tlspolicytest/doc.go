// Package tlspolicytest reads policy lines exactly as Postfix does: a
// transliteration of its C source, function by function and under the same
// names, so that it can judge what package tlspolicy writes and refuses. It is
// for tests, and shares no code with what it judges.
//
// It stands for smtp(8) with the rest of main.cf at its defaults and files that
// can be read. What smtp(8) finds out only when a session starts (protocols,
// cipher grade and exclusions) is an error here as well: the mail is deferred
// all the same.
package tlspolicytest
