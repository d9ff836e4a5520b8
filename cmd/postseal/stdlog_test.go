package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestStdLog: a library that prints without end does not fill the log.
func TestStdLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &stdLog{log: slog.New(slog.NewTextHandler(&out, nil))}
		print := func(n int) {
			for range n {
				_, _ = s.Write([]byte("Error reading milter command: EOF\n"))
			}
		}
		print(1000)
		if n := strings.Count(out.String(), "Error reading"); n != stdLogLines {
			t.Errorf("%d lines", n)
		}
		time.Sleep(stdLogEvery)
		print(1)
		if !strings.Contains(out.String(), "lines=990") || strings.Count(out.String(), "Error reading") != stdLogLines+1 {
			t.Error(out.String())
		}
	})
}
