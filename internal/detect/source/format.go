package source

// A format says how the lines of a file hold log lines.
type format interface {
	// decoder gives the state of one file.
	decoder(*file) decoder
	// limit is the longest line that is looked at, in bytes.
	limit() int
}

// A decoder makes log lines of a file's lines.
type decoder interface {
	// decode fills line from raw, which it may keep no part of after the next
	// call.
	decode(raw []byte, line *Line) outcome
}

// An outcome is the fate of a file's line.
type outcome int

const (
	complete outcome = iota // line is to be handed on
	more                    // the log line goes on in the next line of the file
	skipped                 // the line is no part of a log line
	unusable                // the line is damaged; it is counted and left
)

// plainFormat is one log line a line.
type plainFormat struct{}

func (plainFormat) decoder(*file) decoder { return plainFormat{} }
func (plainFormat) limit() int            { return MaxLine }

func (plainFormat) decode(raw []byte, line *Line) outcome {
	line.Text = raw
	return complete
}
