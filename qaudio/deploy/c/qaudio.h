/* Classification of sound on a microcontroller: int8 weights, no heap, a stream of samples in.
 *
 *     static qaudio_state state;
 *     float logits[QAUDIO_CLASSES];
 *     qaudio_begin(&state);
 *     while (...) qaudio_push(&state, samples, count);      any count, as they come
 *     qaudio_end(&state, logits);
 *
 * Samples are mono, in -1 to 1, at QAUDIO_SAMPLE_RATE. Every layer keeps the few rows that it
 * convolves, so that memory (sizeof(qaudio_state)) does not grow with the length of the sound.
 * The spectra are computed in float, the network in integers; model.h holds the tables of both.
 */
#ifndef QAUDIO_H
#define QAUDIO_H

#include <stdint.h>

#include "model.h"

#define QAUDIO_HISTORY 8 /* spectra kept for the deltas, which reach over 7 */

typedef struct {
    uint32_t samples;                  /* given so far */
    uint32_t frames;                   /* spectra so far */
    uint32_t rows;                     /* given to the network so far */
    int begun;                         /* whether there is one before this sample, */
    float last;                        /* for the pre-emphasis: it */
    float wave[QAUDIO_N_FFT];          /* ring of the latest samples */
    float spectrum[QAUDIO_N_FFT];
    float power[QAUDIO_N_FFT / 2 + 1];
    float mels[QAUDIO_CHANNELS][QAUDIO_HISTORY][QAUDIO_N_MELS]; /* rings: log-mels, deltas */
    uint32_t seen[QAUDIO_LAYERS];      /* rows that a layer was given, those past the end too */
    uint32_t end[QAUDIO_LAYERS];       /* how many of them hold sound */
    uint8_t rings[QAUDIO_RING_BYTES];  /* the latest rows of every layer's input */
    uint16_t sums[QAUDIO_SUMS];        /* rows that are half pooled */
    uint8_t row[QAUDIO_ROW_BYTES];     /* a layer's output */
    uint32_t pooled;                   /* rows that the head has taken in */
    uint32_t top[QAUDIO_FEATURES];     /* their maximum and sum over time */
    uint32_t total[QAUDIO_FEATURES];
} qaudio_state;

/* Start a new sound. */
void qaudio_begin(qaudio_state *state);

/* Take in samples. */
void qaudio_push(qaudio_state *state, const float *samples, uint32_t count);

/* Take in one row of features (mel bins x channels) in the network's steps, where something else
 * computes them: then no samples, and at least QAUDIO_MIN_ROWS of them. */
void qaudio_push_row(qaudio_state *state, const uint8_t *row);

/* End the sound, padded with silence where it is shorter than QAUDIO_MIN_SAMPLES: its logits. */
void qaudio_end(qaudio_state *state, float *logits);

/* Probabilities of the classes, by softmax or, where QAUDIO_MULTILABEL, sigmoid of the logits over
 * QAUDIO_TEMPERATURE; both may be one array. */
void qaudio_probabilities(const float *logits, float *probabilities);

/* Name of a class. */
const char *qaudio_label(int index);

/* Least probability at which a class is given: fitted on held-out sounds where QAUDIO_CALIBRATED,
 * one half otherwise. */
float qaudio_threshold(int index);

#endif
