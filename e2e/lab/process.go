//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// process is a daemon in the foreground, in a process group of its own. Its output goes to a file.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has been waited for
	err    error         // readable after exited
}

func startProcess(network *Network, cmd *exec.Cmd, output string) (*process, error) {
	file, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	if err := network.Start(cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// end sends the signal and waits. A process that does not end by then is killed, which is an error.
func (p *process) end(signal syscall.Signal, deadline time.Duration) error {
	if p == nil {
		return nil
	}
	// The error is only that it has ended already.
	_ = syscall.Kill(p.cmd.Process.Pid, signal)
	select {
	case <-p.exited:
		return nil
	case <-time.After(deadline):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
	return fmt.Errorf("%s did not end within %v of %v", p.cmd.Path, deadline, signal)
}

// running tells whether the process has not ended by itself.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}
