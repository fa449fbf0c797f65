package source

import (
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// rescanEvery is how often names are looked up again although nothing was
	// announced; sweepEvery how often open files are looked at: file systems
	// over a network, and writes through another mount, announce nothing.
	rescanEvery = 5 * time.Second
	sweepEvery  = time.Second
	// pollEvery takes the place of both where the kernel gives no
	// notifications, as when its limit of watches is reached.
	pollEvery = 100 * time.Millisecond
	// maxEvents is how many notifications are taken before files are read.
	maxEvents = 4096
)

// A watch tells of changes in directories. It is a hint: whoever uses it looks
// at the files themselves, and looks again from time to time.
type watch struct {
	w    *fsnotify.Watcher // nil if the kernel gives none
	dirs map[string]bool
	log  *slog.Logger
	poll bool // some directory cannot be watched
}

func newWatch(o Options) *watch {
	log := o.Log
	if o.Poll {
		return &watch{log: log, dirs: map[string]bool{}, poll: true}
	}
	w, err := fsnotify.NewBufferedWatcher(256)
	if err != nil {
		log.Warn("no file notifications, polling instead", "error", err)
		return &watch{log: log, dirs: map[string]bool{}, poll: true}
	}
	return &watch{w: w, log: log, dirs: map[string]bool{}}
}

func (w *watch) close() {
	if w.w != nil {
		w.w.Close()
	}
}

// events is nil, which blocks for ever, without notifications.
func (w *watch) events() chan fsnotify.Event {
	if w.w == nil {
		return nil
	}
	return w.w.Events
}

func (w *watch) errors() chan error {
	if w.w == nil {
		return nil
	}
	return w.w.Errors
}

// set watches exactly dirs. A directory that was deleted and made again is
// watched again, because the kernel's watch went with the old one.
func (w *watch) set(dirs map[string]bool) {
	if w.w == nil {
		return
	}
	for dir := range w.dirs {
		if !dirs[dir] {
			_ = w.w.Remove(dir) // it may be gone, and the watch with it
			delete(w.dirs, dir)
		}
	}
	watched := map[string]bool{}
	for _, dir := range w.w.WatchList() {
		watched[dir] = true
	}
	poll := false
	for dir := range dirs {
		if watched[dir] {
			w.dirs[dir] = true
			continue
		}
		if err := w.w.Add(dir); err != nil {
			if !w.poll {
				w.log.Warn("directory cannot be watched, polling it instead", "directory", dir, "error", err)
			}
			poll = true
			continue
		}
		w.dirs[dir] = true
	}
	w.poll = poll
}

// sweep and rescan are the intervals that the state of the watch asks for.
func (w *watch) sweep() time.Duration {
	if w.poll {
		return pollEvery
	}
	return sweepEvery
}

func (w *watch) rescan() time.Duration {
	if w.poll {
		return pollEvery
	}
	return rescanEvery
}
