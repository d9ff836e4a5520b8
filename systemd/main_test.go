package systemd

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

// activated makes the test binary a program that is started with sockets: it
// says what it got, and greets whoever connects.
const activated = "SYSTEMD_TEST_ACTIVATED"

func TestMain(m *testing.M) {
	if os.Getenv(activated) != "" {
		os.Exit(greet())
	}
	goleak.VerifyTestMain(m)
}

func greet() int {
	listeners, err := Listeners()
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	var names []string
	for name, ls := range listeners {
		names = append(names, fmt.Sprintf("%s=%d", name, len(ls)))
	}
	slices.Sort(names)
	again, err := Listeners()
	fmt.Println(names, "again", len(again), err, "environment", os.Getenv("LISTEN_FDS")+os.Getenv("LISTEN_PID")+os.Getenv("LISTEN_FDNAMES"))
	ls := listeners["socketmap"]
	if len(ls) == 0 {
		return 0
	}
	c, err := ls[0].Accept()
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Fprintln(c, "hello")
	c.Close()
	for _, ls := range listeners {
		for _, l := range ls {
			l.Close()
		}
	}
	return 0
}
